"""The end-to-end run: counting, output, exit codes, and failure when nothing was checked."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from tests.tools.e2e.scripted_server import scripted_server
from tools.e2e.accounts import Credentials, MissingAccount, load_credentials
from tools.e2e.checks import CheckCounter, Checks, check_problem
from tools.e2e.client import Client, NoResponse
from tools.e2e.context import RunContext, ScenarioContext
from tools.e2e.run import GROUPS, run_e2e, select_groups
from tools.e2e.scenario import STARTS_MAX, Scenario, run_scenario

PROBLEM = {
    "type": "about:blank",
    "title": "Not Found",
    "status": 404,
    "detail": "no",
    "instance": "/x",
    "error": "NOT_FOUND",
    "message": "no",
}
HEADERS = {"Content-Type": "application/problem+json", "Cache-Control": "no-store"}


def _run_context() -> RunContext:
    return RunContext(
        Client("http://127.0.0.1:1", on_wait=lambda _seconds, _reason: None), {}, "run"
    )


def _run(url: str, *groups: str, without: tuple[str, ...] = (), as_json: bool = False) -> int:
    return run_e2e(
        url=url,
        groups=groups,
        accounts=None,
        without=without,
        webhook_secret_file=None,
        catcher_url="",
        simulator_url="",
        time_zone="Asia/Seoul",
        as_json=as_json,
    )


def test_failed_check_prints_expected_and_actual_value() -> None:
    lines: list[str] = []
    checks, counter = Checks("order"), CheckCounter(lines.append)
    checks.equal("it is PENDING", "PENDING", "PENDING")
    checks.equal("it costs the price", 2, 1)

    counter.count(checks.made)

    assert lines[0] == "ok  order: it is PENDING"
    assert lines[1].startswith("FAILED  order: it costs the price")
    assert "expected 1, got 2" in lines[1]
    assert counter.summary == "1 passed, 1 failed"


def test_complete_problem_document_passes() -> None:
    whole = httpx.Response(404, json=PROBLEM, headers=HEADERS)

    assert check_problem(whole, 404, "NOT_FOUND") == (True, "")


@pytest.mark.parametrize(
    "broken",
    [
        httpx.Response(400, json=PROBLEM, headers=HEADERS),
        httpx.Response(404, json={**PROBLEM, "error": "OTHER"}, headers=HEADERS),
        httpx.Response(404, json={**PROBLEM, "status": 400}, headers=HEADERS),
        httpx.Response(404, json={**PROBLEM, "detail": "psycopg.Error"}, headers=HEADERS),
        httpx.Response(404, json=PROBLEM, headers={"Cache-Control": "no-store"}),
        httpx.Response(404, json=PROBLEM, headers={**HEADERS, "Cache-Control": "max-age=1"}),
        httpx.Response(
            404, json={k: v for k, v in PROBLEM.items() if k != "instance"}, headers=HEADERS
        ),
    ],
)
def test_incomplete_problem_document_fails(broken: httpx.Response) -> None:
    assert check_problem(broken, 404, "NOT_FOUND")[0] is False


def test_scenario_that_raises_is_a_failed_check() -> None:
    def read_missing_key(context: ScenarioContext) -> None:
        context.check.that("first check", True)
        body: dict[str, str] = {}
        _ = body["items"]

    checks = run_scenario("cart", Scenario(read_missing_key), _run_context())

    assert [check.problem is None for check in checks] == [True, False]
    assert checks[1].title == "read missing key: runs to the end"


def test_scenario_without_response_restarts_and_discards_its_checks() -> None:
    starts: list[int] = []

    def fail_once(context: ScenarioContext) -> None:
        starts.append(len(starts))
        context.check.that(f"start {len(starts)}", True)
        if len(starts) == 1:
            raise NoResponse("502")

    checks = run_scenario("auth", Scenario(fail_once), _run_context())

    assert [check.title for check in checks] == ["start 2"]


def test_scenario_restarts_after_the_time_that_the_response_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("tools.e2e.client.time.sleep", pauses.append)
    monkeypatch.setattr("tools.e2e.client.BACKOFF_MAX_SECONDS", 0.01)

    def unavailable(context: ScenarioContext) -> None:
        raise NoResponse("503", retry_after_seconds=1.0)

    run_scenario("auth", Scenario(unavailable), _run_context())

    assert [int(pause) for pause in pauses] == [1] * (STARTS_MAX - 1)


def test_scenario_that_never_ends_is_a_failed_check() -> None:
    starts: list[int] = []

    def never(context: ScenarioContext) -> None:
        starts.append(len(starts))
        raise NoResponse("502")

    checks = run_scenario("auth", Scenario(never), _run_context())

    assert len(starts) == STARTS_MAX
    assert checks[0].problem is not None and "502" in checks[0].problem


def test_missing_account_is_a_failed_check() -> None:
    def use_staff(context: ScenarioContext) -> None:
        context.staff()

    checks = run_scenario("order", Scenario(use_staff), _run_context())

    assert checks[0].problem is not None and "no staff account" in checks[0].problem
    with pytest.raises(MissingAccount):
        _run_context().staff_account("finance")


def test_credentials_file_precedes_environment_precedes_seed(
    tmp_path: Path,
) -> None:
    file = tmp_path / "accounts.json"
    file.write_text('{"support": {"email": "s@x.kr", "password": "file"}}', encoding="utf-8")
    environment = {
        "SHOP_E2E_SUPPORT_EMAIL": "e@x.kr",
        "SHOP_E2E_SUPPORT_PASSWORD": "environment",
        "SHOP_E2E_FINANCE_EMAIL": "f@x.kr",
        "SHOP_E2E_FINANCE_PASSWORD": "environment",
    }

    credentials = load_credentials(file, environment)

    assert credentials["support"] == Credentials("s@x.kr", "file")
    assert credentials["finance"] == Credentials("f@x.kr", "environment")
    assert credentials["staff"].email == "staff@shop.local"


@pytest.mark.parametrize("text", ["", "[]", '{"staff": "x"}', '{"staff": {"email": "x"}}'])
def test_malformed_accounts_file_is_rejected(tmp_path: Path, text: str) -> None:
    file = tmp_path / "accounts.json"
    file.write_text(text, encoding="utf-8")

    with pytest.raises(ValueError, match=r"accounts\.json"):
        load_credentials(file, {})


def test_groups_run_in_fixed_order() -> None:
    assert select_groups(()) == tuple(name for name in GROUPS if name != "original")
    assert select_groups(("original",)) == ("original",)
    assert select_groups(("order", "flow")) == ("flow", "order")
    with pytest.raises(ValueError, match="nothing"):
        select_groups(("nothing",))


def test_unreachable_shop_exits_2_with_reason(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools.e2e.run.START_SECONDS", 0.0)

    status = _run("http://127.0.0.1:1", "flow")

    out, err = capsys.readouterr()
    assert status == 2
    assert "no shop responds at http://127.0.0.1:1" in err
    assert out.splitlines()[-1] == "0 passed, 0 failed"


@pytest.mark.parametrize(
    ("groups", "without"), [(("nothing",), ()), (("flow",), ("unknown",))], ids=["group", "role"]
)
def test_unknown_group_or_role_exits_2(
    capsys: pytest.CaptureFixture[str], groups: tuple[str, ...], without: tuple[str, ...]
) -> None:
    assert _run("http://127.0.0.1:1", *groups, without=without) == 2
    assert (groups + without)[-1] in capsys.readouterr().err


def test_wrong_responses_exit_1(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted_server((200, {"Content-Type": "application/json"}, [])) as script:
        status = _run(script.url, "not-found")

    last = capsys.readouterr().out.splitlines()[-1]
    assert status == 1
    assert last.endswith(" failed") and not last.endswith(" 0 failed")


def test_skipping_every_scenario_exits_1(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted_server((200, {"Content-Type": "application/json"}, [])) as script:
        status = _run(script.url, "cart", without=("staff",))

    out = capsys.readouterr().out
    assert status == 1
    assert "skipped without staff: ordering the cart empties it" in out
    assert out.splitlines()[-1] == "0 passed, 1 failed"


def test_json_has_the_numbers_and_the_failed_checks(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted_server((200, {"Content-Type": "application/json"}, [])) as script:
        status = _run(script.url, "cart", without=("staff",), as_json=True)

    out, err = capsys.readouterr()
    failure = {
        "group": "run",
        "title": "at least one scenario ran",
        "problem": "every scenario was skipped",
    }
    assert status == 1
    assert json.loads(out) == {"passed": 0, "failed": 1, "failures": [failure]}
    assert "0 passed, 1 failed" in err
