"""The simulator as a process: restart, shutdown, idle."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.tools.payment_simulator.simulator_process import (
    WebhookReceiver,
    charge_call,
    running_simulator,
)
from tests.waiting import wait_for


def test_restart_keeps_records_faults_and_late_charges(tmp_path: Path) -> None:
    with running_simulator(tmp_path / "records.sqlite3") as simulator:
        simulator.set_faults(late_seconds=0.5, seed=9)
        done, late, cancelled = charge_call(), charge_call("CARD_LATE"), charge_call()
        captured = simulator.provider().charge(done)
        assert simulator.provider().charge(late).kind == "unknown"
        assert simulator.provider().cancel(cancelled).kind == "voided"
        simulator.stop(signal.SIGKILL)
        simulator.start()
        provider = simulator.provider()
        assert provider.find(done) == captured
        assert provider.charge(cancelled).kind == "voided"
        assert simulator.request("GET", "/faults")[1]["seed"] == 9
        wait_for(lambda: provider.find(late).kind == "captured", "the late capture")


def test_sigint_during_a_hanging_request_exits_with_0(tmp_path: Path) -> None:
    with running_simulator(tmp_path / "records.sqlite3") as simulator, ThreadPoolExecutor() as pool:
        call = charge_call("CARD_TIMEOUT_AFTER")
        hanging = pool.submit(simulator.provider(timeout_seconds=20).charge, call)
        wait_for(lambda: simulator.captures(call.key), "the capture before the hang")
        assert simulator.stop(signal.SIGINT) == 0
        assert hanging.result().kind == "unknown"
        simulator.start()
        assert simulator.provider().charge(call).kind == "captured"
        assert simulator.captures(call.key) == 1


def test_idle_process_wakes_no_thread(tmp_path: Path, receiver: WebhookReceiver) -> None:
    with running_simulator(tmp_path / "records.sqlite3", receiver.url) as simulator:
        simulator.provider().charge(charge_call())
        wait_for(lambda: simulator.records()["webhooks"] == {"delivered": 1}, "the webhook")
        samples = [_context_switches(simulator.process.pid)]

        def is_idle() -> bool:
            samples.append(_context_switches(simulator.process.pid))
            return len(samples) > 25 and samples[-25] == samples[-1]

        wait_for(is_idle, "half a second without a thread switch")


def _context_switches(pid: int) -> dict[str, str]:
    """The voluntary context switches of each thread of the process."""
    switches: dict[str, str] = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            lines = (task / "status").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            # the thread of a connection that has just ended
            continue
        switches[task.name] = next(line for line in lines if line.startswith("voluntary_ctxt"))
    return switches


@pytest.mark.parametrize("method", ["CARD_REDIRECT", "CARD_WIDGET"])
@pytest.mark.parametrize("public_url", [None, "http://127.0.0.1:8026/"])
def test_customers_are_sent_to_the_public_address(
    tmp_path: Path, method: str, public_url: str | None
) -> None:
    with running_simulator(tmp_path / "records.sqlite3", public_url=public_url) as simulator:
        action = simulator.provider().charge(charge_call(method)).action

    assert action is not None
    expected = (public_url or simulator.url).rstrip("/")
    assert str(action.details["url"]).startswith(f"{expected}/pay/")
