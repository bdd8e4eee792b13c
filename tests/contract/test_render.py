"""Rendered files equal the specs, are valid, and describe every function, route and event."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from openapi_spec_validator import OpenAPIV31SpecValidator

from events.vocabulary import EVENTS, class_of
from shop.primitives.spec import DATABASE_ROLES, FunctionSpec, Route
from shop.registry import all_specs
from tools.render import error_examples, models, openapi, openfaas
from tools.render.__main__ import ROOT, drift, main, render_all, write
from tools.render.objects import name_of, secrets_of
from tools.render.problems import Source

OPENAPI = [p for p in render_all() if re.fullmatch(r"openapi.*\.json", p.name)]
DURATION = re.compile(r"PT(\d+)S")


@pytest.fixture(scope="module")
def files() -> dict[Path, str]:
    """Every file as rendered from the current specs."""
    return render_all()


@pytest.fixture
def manifests(files: dict[Path, str]) -> list[dict[str, Any]]:
    """Every Kubernetes object."""
    texts = [text for path, text in files.items() if path.parent == Path("infra/knative/base")]
    return [document for text in texts for document in yaml.safe_load_all(text)]


def of_kind(manifests: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    """The objects of one kind, by name."""
    return {m["metadata"]["name"]: m for m in manifests if m["kind"] == kind}


def routes() -> Iterator[tuple[FunctionSpec, Route]]:
    """Every route with its function."""
    return ((spec, route) for spec in all_specs() for route in spec.routes)


# ---------------------------------------------------------------- drift


def test_committed_files_equal_the_rendered_ones(files: dict[Path, str]) -> None:
    assert drift(ROOT, files) == []


def test_check_reports_missing_changed_and_orphaned_files(
    tmp_path: Path, files: dict[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, files)
    (tmp_path / "stack.yml").write_text("functions: {}\n")
    (tmp_path / "infra/edge/routes.json").unlink()
    (tmp_path / "infra/knative/base/shop-orphan.yaml").write_text("kind: Service\n")
    (tmp_path / "infra/knative/README.md").write_text("Written by hand.\n")

    status = main(["--check"], root=tmp_path)

    assert status == 1
    assert capsys.readouterr().err.splitlines() == [
        "infra/edge/routes.json is missing",
        "stack.yml differs from the specs",
        "infra/knative/base/shop-orphan.yaml has no renderer",
    ]
    assert (tmp_path / "stack.yml").read_text() == "functions: {}\n"


def test_render_corrects_every_difference(tmp_path: Path, files: dict[Path, str]) -> None:
    write(tmp_path, files)
    (tmp_path / "stack.yml").write_text("functions: {}\n")
    (tmp_path / "infra/knative/base/shop-orphan.yaml").write_text("kind: Service\n")

    assert main([], root=tmp_path) == 0

    assert drift(tmp_path, files) == []
    assert main(["--check"], root=tmp_path) == 0


def test_second_run_writes_the_same_bytes(tmp_path: Path, files: dict[Path, str]) -> None:
    script = (
        "import sys; from pathlib import Path; from tools.render.__main__ import main; "
        "sys.exit(main([], root=Path(sys.argv[1])))"
    )

    subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "4711"},
        check=True,
        timeout=60,
        capture_output=True,
    )

    assert drift(tmp_path, files) == []


def test_rendered_file_ends_in_one_newline(files: dict[Path, str]) -> None:
    bad = [path for path, text in files.items() if not re.search(r"[^\n]\n\Z", text)]

    assert bad == []


# ---------------------------------------------------------------- OpenAPI


@pytest.mark.parametrize("path", OPENAPI, ids=lambda path: path.stem)
def test_openapi_document_is_valid(files: dict[Path, str], path: Path) -> None:
    document = json.loads(files[path])

    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []
    used = set(models.targets(document["paths"]))
    assert {name for name in used if not name.startswith("#")} <= set(
        document["components"]["schemas"]
    )


def test_openapi_has_every_route_with_its_security_and_statuses(
    files: dict[Path, str],
) -> None:
    paths = json.loads(files[openapi.ASSETS / "openapi.json"])["paths"]

    for spec, route in routes():
        shown = paths[route.path][route.method.lower()]
        expected = {str(s) for s in (route.status, *route.other_statuses, *route.error_statuses)}
        assert shown["operationId"] == route.handler
        assert expected <= set(shown["responses"]), f"{spec.name} {route.path}"
        assert ("401" in shown["responses"]) == (
            route.auth != "public" or 401 in route.error_statuses
        )
        assert bool(shown["security"]) == (route.auth != "public")
        assert ("requestBody" in shown) == (route.body is not None)
        names = {parameter["name"] for parameter in shown["parameters"]}
        assert ("Idempotency-Key" in names) == route.idempotent
        assert set(re.findall(r"\{(\w+)\}", route.path)) <= names


def test_error_responses_are_problem_documents_and_429_has_retry_after(
    files: dict[Path, str],
) -> None:
    document = json.loads(files[openapi.ASSETS / "openapi.json"])

    responses = document["components"]["responses"]

    assert {tuple(response["content"]) for response in responses.values()} == {
        ("application/problem+json",)
    }
    shown = {name: set(response["headers"]) for name, response in responses.items()}
    always = {
        "Cache-Control",
        "Content-Language",
        "RateLimit",
        "RateLimit-Policy",
        "X-Content-Type-Options",
    }
    further = {"401": "WWW-Authenticate", "429": "Retry-After", "503": "Retry-After"}
    for name, headers in shown.items():
        status = name.removeprefix("Problem").partition(".")[0]
        if status in further:
            assert headers == always | {further[status]}, name


def test_every_error_has_examples_of_its_own_status_that_its_operation_may_answer(
    files: dict[Path, str],
) -> None:
    document = json.loads(files[openapi.ASSETS / "openapi.json"])
    components = document["components"]
    codes: dict[tuple[str, str], set[str]] = {}

    for methods in document["paths"].values():
        for operation in methods.values():
            errors = {s: r["$ref"] for s, r in operation["responses"].items() if "$ref" in r}
            for status, reference in errors.items():
                response = components["responses"][reference.rpartition("/")[2]]
                examples = [
                    components["examples"][each["$ref"].rpartition("/")[2]]["value"]
                    for each in response["content"]["application/problem+json"]["examples"].values()
                ]
                assert {example["status"] for example in examples} == {int(status)}
                found = {example["error"] for example in examples}
                codes[operation["operationId"], status] = found

    assert codes["add_item", "409"] == {"OUT_OF_STOCK", "REQUEST_IN_PROGRESS"}
    assert codes["add_item", "422"] == {"INVALID", "IDEMPOTENCY_KEY_REUSED"}
    assert codes["register", "409"] == {"EMAIL_TAKEN", "REQUEST_IN_PROGRESS"}
    assert codes["decide_return", "409"] == {"NOT_REQUESTED", "RETURN_CLOSED"} | {
        "REQUEST_IN_PROGRESS"
    }
    assert {"ALREADY_SHIPPED", "NOT_CANCELLABLE"} <= codes["cancel_order", "409"]
    assert "NOT_REFUNDABLE" not in codes["cancel_order", "409"]


def test_examples_of_the_runtimes_errors_are_sentences_of_the_source() -> None:
    examples = (
        *error_examples.ALWAYS,
        *error_examples.WITH_BODY,
        *error_examples.WITH_KEY,
        *error_examples.WITH_ROLE,
        *error_examples.SIGNED_IN,
    )

    known = {sentence.english for sentence in Source().read().sentences}

    assert [each for each in examples if each.english not in known] == []


def test_no_parameter_has_an_example_that_pages_would_send(files: dict[Path, str]) -> None:
    paths = json.loads(files[openapi.ASSETS / "openapi.json"])["paths"]

    parameters = [p for m in paths.values() for o in m.values() for p in o["parameters"]]

    assert any("examples" in parameter["schema"] for parameter in parameters)
    assert [p["name"] for p in parameters if p.keys() & {"example", "examples"}] == []


def test_example_is_valid_for_its_model() -> None:
    checked = 0
    for spec, route in routes():
        example = openapi.example_of(spec, route)
        for part, name in (
            ("body", route.body),
            ("query", route.query),
            ("response", route.response),
        ):
            if name and part in example:
                text = json.dumps(example[part])
                model = models.model_of(spec, name)
                assert model.model_validate_json(text), f"{spec.name} {route.handler} {part}"
                checked += 1
    assert checked >= 10


def test_different_models_with_one_name_get_different_names() -> None:
    reading = next(spec for spec in all_specs() if spec.name == "read_settlements")
    collected = models.collect((reading,))

    assert set(collected.schemas) == {
        "DailySettlement",
        "DailySettlements",
        "MonthlySettlement",
        "MonthlySettlements",
    }
    whole = models.collect(all_specs())
    assert len(set(whole.names.values())) == len(whole.schemas)
    for key, name in whole.names.items():
        assert set(models.targets(whole.schemas[name])) <= set(whole.schemas), key


def test_two_routes_with_one_handler_are_an_error() -> None:
    spec = next(spec for spec in all_specs() if spec.name == "read_settlements")
    duplicated = replace(spec, name="read_settlements", routes=(spec.routes[0], spec.routes[0]))

    with pytest.raises(ValueError, match="read_daily"):
        openapi.document((duplicated,), models.collect((duplicated,)))


# ---------------------------------------------------------------- AsyncAPI


def test_asyncapi_has_emitters_and_consumers_of_every_event(files: dict[Path, str]) -> None:
    document = json.loads(files[openapi.ASSETS / "asyncapi.json"])

    operations = document["operations"]

    expected = {f"{s.name}.announces.{name}" for s in all_specs() for name in s.emits}
    expected |= {f"{s.name}.consumes.{sub.event}" for s in all_specs() for sub in s.subscriptions}
    assert set(operations) == expected
    for event in EVENTS:
        message = document["components"]["messages"][event.name]
        assert message["name"] == event.type
        payload = message["examples"][0]["payload"]
        assert sorted(payload) == sorted(message["payload"]["required"])


# ---------------------------------------------------------------- edge


def test_edge_table_has_exactly_the_routes_of_the_specs(files: dict[Path, str]) -> None:
    table = json.loads(files[Path("infra/edge/routes.json")])["routes"]

    assert sorted((r["method"], r["path"], r["function"]) for r in table) == sorted(
        (route.method, route.path, spec.name) for spec, route in routes()
    )


# ---------------------------------------------------------------- Knative


def test_function_is_a_cluster_local_service_that_scales_from_zero(
    manifests: list[dict[str, Any]],
) -> None:
    services = of_kind(manifests, "Service")

    assert set(services) == {name_of(spec) for spec in all_specs()}
    for spec in all_specs():
        service = services[name_of(spec)]
        metadata, template = service["metadata"], service["spec"]["template"]
        scaling = template["metadata"]["annotations"]
        pod = template["spec"]
        (container,) = pod["containers"]
        assert metadata["labels"]["networking.knative.dev/visibility"] == "cluster-local"
        annotations = metadata.get("annotations", {})
        assert not [name for name in annotations if name.startswith("autoscaling")]
        assert not [name for name in template["metadata"]["labels"] if "version" in name]
        assert scaling["autoscaling.knative.dev/min-scale"] == "0"
        assert scaling["autoscaling.knative.dev/max-scale"] == str(spec.scale.max_scale)
        assert container["args"] == [spec.name]
        assert pod["containerConcurrency"] == spec.scale.in_flight_max
        assert pod["timeoutSeconds"] >= 60
        assert pod["responseStartTimeoutSeconds"] >= spec.timeout_seconds
        assert pod["responseStartTimeoutSeconds"] < pod["timeoutSeconds"]
        assert "periodSeconds" not in container["readinessProbe"]
        assert "startupProbe" not in container
        assert {v["name"] for v in pod["volumes"]} == {m["name"] for m in container["volumeMounts"]}
        assert container["securityContext"]["runAsNonRoot"] is True


def test_subscription_is_a_trigger_with_a_complete_delivery(
    manifests: list[dict[str, Any]],
) -> None:
    triggers = of_kind(manifests, "Trigger")
    services = of_kind(manifests, "Service")

    wanted = sorted(
        (name_of(spec), class_of(subscription.event).type)
        for spec in all_specs()
        for subscription in spec.subscriptions
    )
    assert wanted == sorted(
        (t["spec"]["subscriber"]["ref"]["name"], t["spec"]["filters"][0]["exact"]["type"])
        for t in triggers.values()
    )
    for trigger in triggers.values():
        delivery = trigger["spec"]["delivery"]
        subscriber = trigger["spec"]["subscriber"]
        pod = services[subscriber["ref"]["name"]]["spec"]["template"]["spec"]
        timeout = DURATION.fullmatch(delivery["timeout"])
        assert set(delivery) == {
            "retry",
            "backoffPolicy",
            "backoffDelay",
            "timeout",
            "deadLetterSink",
        }
        assert delivery["deadLetterSink"]["ref"]["name"] == "shop-dead-letter"
        assert (subscriber["uri"], delivery["deadLetterSink"]["uri"]) == ("/events", "/events")
        assert timeout is not None
        assert int(timeout[1]) > pod["responseStartTimeoutSeconds"]


def test_schedule_is_a_cron_job_that_ticks_its_function(
    manifests: list[dict[str, Any]],
) -> None:
    jobs = of_kind(manifests, "CronJob")

    ticked = {
        tuple(job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["args"])
        for job in jobs.values()
    }

    assert ticked == {
        (schedule.name, f"http://{name_of(spec)}.shop.svc.cluster.local/events")
        for spec in all_specs()
        for schedule in spec.schedules
    }
    assert {job["spec"]["schedule"] for job in jobs.values()} == {
        schedule.cron for spec in all_specs() for schedule in spec.schedules
    }


def test_event_has_an_event_type_of_each_source_and_kustomization_lists_every_file(
    files: dict[Path, str], manifests: list[dict[str, Any]]
) -> None:
    types = of_kind(manifests, "EventType")
    kustomization = next(m for m in manifests if m["kind"] == "Kustomization")

    declared = [
        {attribute["name"]: attribute.get("value") for attribute in each["spec"]["attributes"]}
        for each in types.values()
    ]
    assert sorted((each["type"], each["source"]) for each in declared) == sorted(
        (event.type, spec.source)
        for event in EVENTS
        for spec in all_specs()
        if event.name in spec.emits
    )
    assert {each["type"] for each in declared} == {event.type for event in EVENTS}
    assert kustomization["resources"] == sorted(
        path.name
        for path in files
        if path.parent == Path("infra/knative/base") and path.name != "kustomization.yaml"
    )


def test_only_login_mounts_the_key_that_signs_tokens() -> None:
    holders: dict[str, list[str]] = {name: [] for spec in all_specs() for name in secrets_of(spec)}
    for spec in all_specs():
        for name in secrets_of(spec):
            holders[name].append(spec.name)

    assert holders["shop-jwt"] == ["login"]
    assert holders["shop-links"] == ["account", "notify"]
    assert holders["shop-mail"] == ["notify"]
    assert holders["shop-payment-webhook"] == ["payment_webhook"]
    assert holders["shop-payment-provider"] == [
        spec.name for spec in all_specs() if "provider" in spec.needs
    ]


# ---------------------------------------------------------------- OpenFaaS


def test_stack_has_every_function_once_and_fits_the_community_edition(
    files: dict[Path, str],
) -> None:
    stack = yaml.safe_load(files[Path("stack.yml")])

    functions = stack["functions"]

    names = [n for f in functions.values() for n in f["environment"]["FUNCTION_NAME"].split()]
    assert sorted(names) == [spec.name for spec in all_specs()]
    assert len(functions) <= 15
    assert max(int(f["labels"]["com.openfaas.scale.max"]) for f in functions.values()) <= 5
    for function in functions.values():
        assert all(isinstance(value, str) for value in function["environment"].values())
        for variable, path in function["environment"].items():
            if variable.endswith("_FILE"):
                assert Path(path).name in function["secrets"]


def test_group_of_two_trust_domains_is_an_error() -> None:
    cart = FunctionSpec(name="cart", summary="s", database_role="ordering")
    reading = FunctionSpec(name="read_orders", summary="s", database_role="ops")

    with pytest.raises(ValueError, match="orders have different database roles"):
        openfaas.stack((cart, reading))


def test_sixteenth_function_shares_a_process_with_one_of_its_role() -> None:
    new = [
        FunctionSpec(name=f"new_{number}", summary="s", database_role=role)
        for number, role in enumerate(("stock", "catalog_ro", "identity"))
    ]
    alone = openfaas.FUNCTIONS_MAX - len(openfaas.grouped(all_specs()))

    stack = openfaas.stack((*all_specs(), *new[: alone + 1]))["functions"]

    assert len(stack) == openfaas.FUNCTIONS_MAX
    # of all pairs of one role these gain no secret and have the fewest threads
    names = stack["shop-manage-products"]["environment"]["FUNCTION_NAME"]
    assert names == "manage_products new_0"
    # placing orders would gain the secret of the carriers' webhook
    assert stack["shop-place-order"]["environment"]["FUNCTION_NAME"] == "place_order"


def test_groups_of_many_functions_keep_to_one_role_each() -> None:
    many = tuple(
        FunctionSpec(name=f"f_{role}_{n}", summary="s", database_role=role)
        for role in (*DATABASE_ROLES, None)
        for n in range(4)
    )

    groups = openfaas.grouped(many)

    assert len(groups) == openfaas.FUNCTIONS_MAX
    assert sorted(spec.name for members in groups.values() for spec in members) == sorted(
        spec.name for spec in many
    )
    assert all(len({spec.database_role for spec in members}) == 1 for members in groups.values())


def test_one_group_per_role_fits_the_community_edition() -> None:
    assert len(DATABASE_ROLES) + 1 <= openfaas.FUNCTIONS_MAX
