"""How a run counts, what it prints, and that it cannot pass by doing nothing."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.tools.e2e.scripted_server import scripted_server
from tools.e2e import run as run_module
from tools.e2e.accounts import Credentials, NoAccount, known_people
from tools.e2e.checks import Checks, Tally, judge_problem
from tools.e2e.client import Client, NoAnswer
from tools.e2e.harness import Cast, Stage
from tools.e2e.run import GROUPS, chosen, run_e2e
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


def _cast() -> Cast:
    return Cast(Client("http://127.0.0.1:1", on_wait=lambda *_: None), {}, "run")


def _run(url: str, *groups: str, without: tuple[str, ...] = ()) -> int:
    return run_e2e(
        url=url,
        groups=groups,
        accounts=None,
        without=without,
        webhook_secret_file=None,
        time_zone="Asia/Seoul",
    )


def test_a_check_says_what_was_wanted_and_what_came() -> None:
    lines: list[str] = []
    checks, tally = Checks("order"), Tally(lines.append)
    checks.equal("it is PENDING", "PENDING", "PENDING")
    checks.equal("it costs the price", 2, 1)

    tally.count(checks.made)

    assert lines[0] == "ok  order: it is PENDING"
    assert lines[1].startswith("FAILED  order: it costs the price")
    assert "wanted 1, got 2" in lines[1]
    assert tally.verdict == "1 passed, 1 failed"


def test_a_whole_problem_document_is_accepted() -> None:
    whole = httpx.Response(404, json=PROBLEM, headers=HEADERS)

    assert judge_problem(whole, 404, "NOT_FOUND") == (True, "")


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
def test_anything_less_than_a_problem_document_is_a_failure(broken: httpx.Response) -> None:
    assert judge_problem(broken, 404, "NOT_FOUND")[0] is False


def test_a_story_that_breaks_off_is_a_failure() -> None:
    def meet_another_shape(stage: Stage) -> None:
        stage.check.that("it begins", True)
        _ = {}["items"]

    checks = run_scenario("cart", Scenario(meet_another_shape), _cast())

    assert [check.problem is None for check in checks] == [True, False]
    assert checks[1].title == "meet another shape comes to its end"


def test_a_story_without_an_answer_starts_over_and_forgets() -> None:
    starts: list[int] = []

    def stumble_once(stage: Stage) -> None:
        starts.append(len(starts))
        stage.check.that(f"start {len(starts)}", True)
        if len(starts) == 1:
            raise NoAnswer("502")

    checks = run_scenario("auth", Scenario(stumble_once), _cast())

    assert [check.title for check in checks] == ["start 2"]


def test_a_story_that_never_comes_through_is_a_failure() -> None:
    starts: list[int] = []

    def never(stage: Stage) -> None:
        starts.append(len(starts))
        raise NoAnswer("502")

    checks = run_scenario("auth", Scenario(never), _cast())

    assert len(starts) == STARTS_MAX
    assert checks[0].problem is not None and "502" in checks[0].problem


def test_a_missing_account_is_a_failure() -> None:
    def ask_for_staff(stage: Stage) -> None:
        stage.staff()

    checks = run_scenario("order", Scenario(ask_for_staff), _cast())

    assert checks[0].problem is not None and "no staff account" in checks[0].problem
    with pytest.raises(NoAccount):
        _cast().person("finance")


def test_credentials_come_from_the_file_before_the_environment_before_the_seed(
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

    people = known_people(file, environment)

    assert people["support"] == Credentials("s@x.kr", "file")
    assert people["finance"] == Credentials("f@x.kr", "environment")
    assert people["staff"].email == "staff@shop.local"


@pytest.mark.parametrize("text", ["", "[]", '{"staff": "x"}', '{"staff": {"email": "x"}}'])
def test_a_malformed_accounts_file_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "accounts.json"
    file.write_text(text, encoding="utf-8")

    with pytest.raises(ValueError, match=r"accounts\.json"):
        known_people(file, {})


def test_groups_are_played_in_their_own_order() -> None:
    assert chosen(()) == tuple(GROUPS)
    assert chosen(("order", "flow")) == ("flow", "order")
    with pytest.raises(ValueError, match="nothing"):
        chosen(("nothing",))


def test_no_shop_is_said_clearly(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "START_SECONDS", 0.0)

    status = _run("http://127.0.0.1:1", "flow")

    out, err = capsys.readouterr()
    assert status == 1
    assert "no shop answers at http://127.0.0.1:1" in err
    assert out.splitlines()[-1] == "0 passed, 0 failed"


@pytest.mark.parametrize(
    ("groups", "without"), [(("nothing",), ()), (("flow",), ("king",))], ids=["group", "role"]
)
def test_a_wrong_word_is_refused(
    capsys: pytest.CaptureFixture[str], groups: tuple[str, ...], without: tuple[str, ...]
) -> None:
    assert _run("http://127.0.0.1:1", *groups, without=without) == 2
    assert (groups + without)[-1] in capsys.readouterr().err


def test_a_shop_that_answers_wrongly_fails(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted_server((200, {"Content-Type": "application/json"}, [])) as script:
        status = _run(script.url, "not-found")

    last = capsys.readouterr().out.splitlines()[-1]
    assert status == 1
    assert last.endswith(" failed") and not last.endswith(" 0 failed")


def test_leaving_everything_out_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted_server((200, {"Content-Type": "application/json"}, [])) as script:
        status = _run(script.url, "cart", without=("staff",))

    out = capsys.readouterr().out
    assert status == 1
    assert "left out without staff: order the cart" in out
    assert out.splitlines()[-1] == "0 passed, 1 failed"
