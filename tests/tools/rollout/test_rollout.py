"""``shop rollout`` with the real ``kubectl``: steps, limits, interruptions, two at once."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from inspect import signature
from pathlib import Path
from subprocess import Popen

import pytest
import yaml

from shop.primitives.spec import FunctionSpec
from shop.registry import all_specs
from tests.tools.rollout.conftest import CANDIDATE, FAST, ROOT, SERVICE, STABLE, Pod, Shop
from tests.tools.rollout.serving import PODS, SERVICES, TOOLS_POD, write_kubeconfig
from tests.waiting import wait_for
from tools.cli import rollout_run
from tools.cost.usage import SCRAPE_SECONDS
from tools.local_platform.servers import free_port
from tools.render.knative import service
from tools.rollout.cluster import Cluster
from tools.rollout.figures import from_logs, growth_query, quantile_query
from tools.rollout.steps import give_back
from tools.rollout.traffic import ANNOTATION

RUN = ("run", "list_products", *FAST)
RETURN_SECONDS_MAX = 60  # of docs/how-to/upgrade-and-roll-back.md
# What the smoke requests to a stub do not cover is answered with its status.
WARM = {"milliseconds": 5.0}
ONLY_STABLE, ONLY_CANDIDATE = {STABLE: 100}, {CANDIDATE: 100}


def annotation(shop: Shop) -> str | None:
    """The claim of a roll-out."""
    return shop.serving.services[SERVICE]["metadata"]["annotations"].get(ANNOTATION)


def recorded_targets(shop: Shop) -> list[dict[str, int]]:
    """The divisions of requests before each patch, in a list that grows."""
    seen: list[dict[str, int]] = []
    shop.serving.on_patch = lambda name: seen.append(shop.serving.targets(name))
    return seen


def test_healthy_revision_receives_all_requests_in_steps(shop: Shop) -> None:
    seen = recorded_targets(shop)
    shop.deploy(CANDIDATE, Pod())

    with shop.customers():
        result = shop.rollout(*RUN, "--steps=10,50,100", "--json")

    assert result.returncode == 0, result.stderr
    document = {"result": "rolled out", "reason": "", "functions": [SERVICE]}
    assert json.loads(result.stdout) == document
    shares = [targets.get(CANDIDATE, 0) for targets in seen]
    assert sorted(set(shares)) == [0, 10, 50, 100]
    assert shares == sorted(shares)
    assert shop.serving.targets(SERVICE) == ONLY_CANDIDATE
    assert annotation(shop) is None
    assert set(shop.statuses) == {200}
    assert "$ kubectl --namespace=shop patch services.serving.knative.dev" in result.stderr


@pytest.mark.parametrize(
    ("pod", "reason"),
    [
        (Pod(status=503), "responses are 5xx"),
        (Pod(milliseconds=400.0), "times the stable revision's"),
        (Pod(startup_ms=9000), "cold starts take 9.00 s"),
    ],
    ids=["errors", "latency", "cold start"],
)
def test_revision_above_a_limit_is_returned_at_its_first_step(
    shop: Shop, pod: Pod, reason: str
) -> None:
    seen: list[dict[str, int]] = []

    # the fault shows with customers' requests only, as one of data or load does
    def break_before_the_first_step(name: str) -> None:
        seen.append(shop.serving.targets(name))
        if len(seen) == 3:
            shop.deploy(CANDIDATE, pod)

    shop.serving.on_patch = break_before_the_first_step
    shop.deploy(CANDIDATE, Pod())
    with shop.customers():
        result = shop.rollout(*RUN, "--steps=20,100")

    assert result.returncode == 1, result.stderr
    assert reason in result.stderr
    assert max(targets.get(CANDIDATE, 0) for targets in seen) == 20
    assert shop.serving.targets(SERVICE) == ONLY_STABLE
    assert annotation(shop) is None


def test_return_is_one_read_and_one_patch_of_each_function(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = "shop-api-docs"
    shop.deploy(f"{second}-00001", Pod(), service=second)
    for name in ("KUBECONFIG", "PATH"):
        monkeypatch.setenv(name, shop.environment[name])

    give_back(Cluster("shop"), {SERVICE: STABLE, second: f"{second}-00001"})

    # discovery apart, which kubectl keeps; its patch reads the object first
    calls = [r for r in shop.serving.requests if "/services" in r or r.startswith("PATCH")]
    of_each = [
        [f"GET {SERVICES}", f"GET {SERVICES}/{name}", f"PATCH {name}"] for name in (SERVICE, second)
    ]
    assert sorted(calls) == sorted(of_each[0] + of_each[1])
    for name in (SERVICE, second):
        assert shop.serving.targets(name) == {f"{name}-00001": 100}


def test_default_settings_return_within_60_seconds_when_each_call_takes_eight() -> None:
    queries, read, patch, call_seconds = 3, 1, 1, 8
    check_seconds = signature(rollout_run).parameters["check_seconds"].default

    calls = (queries + read + patch) * call_seconds
    assert check_seconds + SCRAPE_SECONDS + calls <= RETURN_SECONDS_MAX


def test_revision_that_fails_its_smoke_requests_receives_no_request(shop: Shop) -> None:
    seen = recorded_targets(shop)
    shop.deploy(CANDIDATE, Pod(status=500))

    result = shop.rollout(*RUN)

    assert result.returncode == 1
    assert "GET /products is answered with 500" in result.stderr
    assert all(targets == ONLY_STABLE for targets in seen)
    assert shop.serving.targets(SERVICE) == ONLY_STABLE


IN_CLUSTER = tuple(option for option in FAST if option != "--smoke-from=")


@pytest.mark.parametrize(
    ("status", "code", "text"),
    [(200, 0, "answers as it should"), (500, 1, "GET /products is answered with 500")],
)
def test_smoke_requests_are_sent_by_the_operators_pod(
    shop: Shop, status: int, code: int, text: str
) -> None:
    shop.deploy(CANDIDATE, Pod(status=status))

    with shop.customers():
        result = shop.rollout("run", "list_products", *IN_CLUSTER, "--steps=100")

    assert result.returncode == code, result.stderr
    assert text in result.stderr
    assert shop.serving.targets(SERVICE) == (ONLY_STABLE if code else ONLY_CANDIDATE)
    assert f"GET {PODS}/{TOOLS_POD}/exec" in shop.serving.requests


def test_without_the_operators_pod_nothing_begins_and_the_command_that_starts_it_is_named(
    shop: Shop,
) -> None:
    shop.serving.has_tools_pod = False
    shop.deploy(CANDIDATE, Pod())

    result = shop.rollout("run", "list_products", *IN_CLUSTER)

    assert result.returncode == 2
    assert "`kubectl scale deploy/shop-tools --replicas=1 --namespace=shop`" in result.stderr
    assert not any(request.startswith("PATCH") for request in shop.serving.requests)


def test_revision_that_is_not_ready_receives_no_request(shop: Shop) -> None:
    shop.deploy(CANDIDATE, Pod(), ready="False", message="ImagePullBackOff")

    result = shop.rollout(*RUN)

    assert result.returncode == 1
    assert f"{CANDIDATE} is not Ready: ImagePullBackOff" in result.stderr
    assert shop.serving.targets(SERVICE) == ONLY_STABLE


def test_revision_that_becomes_neither_ready_nor_failed_is_given_up(shop: Shop) -> None:
    shop.deploy(CANDIDATE, Pod(), ready="Unknown")

    result = shop.rollout(*RUN, "--ready-seconds=1")

    assert result.returncode == 1
    assert "was not Ready within 1 s" in result.stderr
    assert shop.serving.targets(SERVICE) == ONLY_STABLE


def started(shop: Shop) -> Popen[str]:
    """A roll-out that stays at 10 %, since there are no customers."""
    shop.deploy(CANDIDATE, Pod())
    process = shop.start(*RUN, "--steps=10,50,100", "--step-seconds-max=600")
    wait_for(lambda: shop.serving.targets(SERVICE).get(CANDIDATE) == 10, "10 %", 60)
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_roll_out_returns_the_requests(shop: Shop, number: int) -> None:
    process = started(shop)

    process.send_signal(number)
    output, _ = process.communicate(timeout=60)

    assert process.returncode == 1, output
    assert "returning: interrupted" in output
    assert shop.serving.targets(SERVICE) == ONLY_STABLE
    assert annotation(shop) is None


def test_killed_roll_out_is_continued_at_its_step_once_its_claim_is_old(shop: Shop) -> None:
    process = started(shop)
    process.kill()
    process.communicate(timeout=60)

    too_early = shop.rollout(*RUN)
    claim = json.loads(annotation(shop) or "{}")
    claim["renewedAt"] = "2026-01-01T00:00:00+00:00"
    shop.serving.services[SERVICE]["metadata"]["annotations"][ANNOTATION] = json.dumps(claim)
    seen = recorded_targets(shop)
    with shop.customers():
        continued = shop.rollout(*RUN, "--steps=10,50,100")

    assert too_early.returncode == 2
    assert "is in a roll-out of" in too_early.stderr
    assert continued.returncode == 0, continued.stderr
    assert min(targets.get(CANDIDATE, 0) for targets in seen) == 10
    assert shop.serving.targets(SERVICE) == ONLY_CANDIDATE


def test_return_ends_a_roll_out_whose_process_then_stops(shop: Shop) -> None:
    process = started(shop)

    second = shop.rollout(*RUN)
    returned = shop.rollout("return", "list_products")
    output, _ = process.communicate(timeout=60)

    assert second.returncode == 2
    assert (returned.returncode, returned.stdout) == (0, f"{SERVICE}: {STABLE}\n")
    assert process.returncode == 2
    assert "was taken over by another command" in output
    assert shop.serving.targets(SERVICE) == ONLY_STABLE


def test_return_after_a_roll_out_restores_the_previous_revision(shop: Shop) -> None:
    shop.deploy(CANDIDATE, Pod())
    with shop.customers():
        assert shop.rollout(*RUN, "--steps=100").returncode == 0

    returned = shop.rollout("return")

    assert (returned.returncode, returned.stdout) == (0, f"{SERVICE}: {STABLE}\n")
    assert shop.serving.targets(SERVICE) == ONLY_STABLE
    assert shop.rollout("return").returncode == 1


def test_change_between_read_and_patch_is_repeated(shop: Shop) -> None:
    shop.deploy(CANDIDATE, Pod())
    shop.serving.has_status_updates = True

    with shop.customers():
        result = shop.rollout(*RUN, "--steps=100")

    assert result.returncode == 0, result.stderr
    assert shop.serving.has_status_updates is False


def test_pin_keeps_the_requests_of_the_next_upgrade(make_shop: Callable[[], Shop]) -> None:
    shop = make_shop()
    shop.deploy(STABLE, Pod())

    unpinned = shop.rollout("status", "--json")
    assert shop.rollout("pin").returncode == 0
    shop.deploy(CANDIDATE, Pod())

    assert json.loads(unpinned.stdout)[0]["stablePercent"] == 100
    assert shop.serving.targets(SERVICE) == ONLY_STABLE
    (row,) = json.loads(shop.rollout("status", "--json").stdout)
    assert (row["stable"], row["candidate"], row["candidatePercent"]) == (STABLE, CANDIDATE, 0)
    assert shop.rollout("unpin").returncode == 0
    assert shop.serving.targets(SERVICE) == ONLY_CANDIDATE


def test_upgrade_without_pin_is_rejected_with_what_to_do(make_shop: Callable[[], Shop]) -> None:
    shop = make_shop()
    shop.deploy(STABLE, Pod())
    shop.deploy(CANDIDATE, Pod(), ready="Unknown")

    result = shop.rollout(*RUN)

    assert result.returncode == 2
    assert "run `shop rollout pin` before the upgrade" in result.stderr


COMMANDS = ("pin", "unpin", "run", "return", "status")


@pytest.mark.parametrize("command", COMMANDS)
def test_function_that_the_cluster_does_not_have_exits_2_and_is_named(
    shop: Shop, command: str
) -> None:
    missing = shop.rollout(command, "list_products", "charge")
    unknown = shop.rollout(command, "list_product")

    assert (missing.returncode, unknown.returncode) == (2, 2)
    assert "the namespace shop has no Knative Service shop-charge" in missing.stderr
    assert "list_product" in unknown.stderr
    assert shop.serving.targets(SERVICE) == ONLY_STABLE


@pytest.mark.parametrize("command", COMMANDS)
def test_namespace_without_the_shop_exits_2(make_shop: Callable[[], Shop], command: str) -> None:
    result = make_shop().rollout(command)

    assert result.returncode == 2
    assert "no Knative Service of the shop: is --namespace or --context another?" in result.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_cluster_that_cannot_be_reached_exits_2_with_the_reason(
    shop: Shop, tmp_path: Path, command: str
) -> None:
    write_kubeconfig(tmp_path / "kubeconfig", f"http://127.0.0.1:{free_port()}")

    result = shop.rollout(command)

    assert result.returncode == 2
    assert "refused" in result.stderr
    assert "Traceback" not in result.stderr


def test_machine_without_kubectl_exits_2_and_names_it(shop: Shop, tmp_path: Path) -> None:
    shop.environment["PATH"] = str(tmp_path)

    result = shop.rollout("status")

    assert result.returncode == 2
    assert "kubectl is not installed, or not on the PATH" in result.stderr


def test_nothing_new_is_no_failure(shop: Shop) -> None:
    result = shop.rollout(*RUN)

    assert (result.returncode, result.stderr) == (0, "")


def test_figures_of_prometheus_decide_through_the_api_server(shop: Shop) -> None:
    queries: list[str] = []

    def answer(query: str) -> list[dict[str, object]]:
        queries.append(query)
        if "shop_requests_total" not in query:
            return []
        return [
            {"metric": {"revision": CANDIDATE, "status": status}, "value": [time.time(), value]}
            for status, value in (("2xx", "90"), ("4xx", "400"), ("5xx", "10"))
        ]

    shop.serving.prometheus = answer
    shop.deploy(CANDIDATE, Pod())

    result = shop.rollout(*RUN, "--prometheus=monitoring/prometheus-operated:9090")

    assert result.returncode == 1
    assert "10 of 100 responses are 5xx (10.0 %, limit 1 %)" in result.stderr
    assert all(f'pod=~"({STABLE}|{CANDIDATE})-deployment-.+"' in query for query in queries)
    assert shop.serving.targets(SERVICE) == ONLY_STABLE


def test_client_errors_in_logs_are_no_requests_that_a_revision_answered() -> None:
    lines = [
        (f"{CANDIDATE}-deployment-1", json.dumps({"message": "answered", "status": status} | WARM))
        for status in (200, 201, 401, 429, 429, 503)
    ]

    class Logs(Cluster):
        def logs(self, revisions: Iterable[str], since: datetime) -> Iterable[tuple[str, str]]:
            return lines

    figures = from_logs(Logs("shop"))([CANDIDATE], datetime.now(UTC))

    assert (figures[CANDIDATE].requests, figures[CANDIDATE].errors) == (3, 1)


def test_queries_that_promtool_evaluates_are_those_of_the_roll_out() -> None:
    path = ROOT / "tests/tools/observability/rollout_queries.yaml"
    (test,) = yaml.safe_load(path.read_text("utf-8"))["tests"]

    assert [each["expr"] for each in test["promql_expr_test"]] == [
        growth_query("shop_requests_total", "status", ["a-1", "a-2"], 60),
        quantile_query("cold_start_seconds", ["a-1", "a-2"], 60),
    ]


@pytest.mark.parametrize("steps", ["10,5,100", "0,100", "10,50", "10,10,100"])
def test_steps_that_do_not_rise_to_100_are_rejected(shop: Shop, steps: str) -> None:
    result = shop.rollout(*RUN, f"--steps={steps}")

    assert result.returncode != 0
    assert "percent" in result.stderr


@pytest.mark.parametrize("spec", all_specs(), ids=lambda spec: spec.name)
def test_chart_and_manifests_leave_the_traffic_to_the_roll_out(spec: FunctionSpec) -> None:
    templates = (ROOT / "helm/msa-shop/templates/functions.yaml").read_text("utf-8")

    assert "traffic" not in service(spec)["spec"]
    assert "traffic:" not in templates
