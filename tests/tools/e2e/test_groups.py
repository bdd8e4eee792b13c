"""Every e2e group against the local platform with duplicated, reordered and lost events and kills.

The local platform runs PostgreSQL, Redis, broker, provider, and each function as a process.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.tools.e2e.running_shop import (
    Result,
    RunningShop,
    assert_all_passed,
    run_group,
    running_shop,
)
from tools.e2e.run import select_groups

FAULTS = ("--duplicate", "0.3", "--reorder", "0.3", "--lose", "0.05", "--kill", "0.05")
# Of the customers that a run registers, and of the operators of the seed.
ADDRESS = re.compile(r"[\w.-]+(?:@|%40)(?:example\.com|shop\.local)")
# High enough for the groups before rate-limit, low enough for that group to exceed quickly.
LIMIT = "600"
# Wait for payment retries and deadlines.  rate-limit waits too, but its requests get functions
# killed often.
BACKGROUND_GROUPS = ("order", "actions")


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningShop]:
    """``shop dev`` with faults."""
    data = tmp_path_factory.mktemp("platform")
    limit = {"RATE_LIMIT_PER_MINUTE": LIMIT}
    with running_shop(data, *FAULTS, "--seed", "7", environment=limit) as shop:
        yield shop


@pytest.fixture(scope="module")
def started(platform: RunningShop) -> Generator[dict[str, Future[Result]]]:
    """The runs of the groups that mostly wait, started in the background."""
    with ThreadPoolExecutor(len(BACKGROUND_GROUPS)) as pool:
        yield {group: pool.submit(run_group, platform, group) for group in BACKGROUND_GROUPS}


@pytest.mark.timeout(480)
@pytest.mark.parametrize("group", select_groups(()))
def test_group_passes_while_events_are_lost_and_functions_killed(
    platform: RunningShop, started: dict[str, Future[Result]], group: str
) -> None:
    assert_all_passed(started[group].result() if group in started else run_group(platform, group))


# stopping the platform, after the last test, counts too
@pytest.mark.timeout(480)
def test_no_log_of_the_platform_has_an_address(platform: RunningShop) -> None:
    """Functions, simulator, PostgreSQL and Redis, after the groups above."""
    logs = {path.name: path.read_text(errors="replace") for path in platform.data.rglob("*.log")}

    with_address = {
        name: match[0] for name, text in logs.items() if (match := ADDRESS.search(text)) is not None
    }

    assert {"login.log", "register.log"} <= {name for name, text in logs.items() if text}
    assert with_address == {}
