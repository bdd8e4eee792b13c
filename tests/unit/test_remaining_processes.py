"""The check at the end of a test run finds the processes that tests leave behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from tests.remaining_processes import ROOT, orphans_since
from tests.waiting import wait_for

LEAVE_A_PROCESS = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"],
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(child.pid)
"""

TEST = f"{__file__}::test_process_whose_parent_has_exited_is_found_until_it_ends"


def test_process_whose_parent_has_exited_is_found_until_it_ends() -> None:
    command = [sys.executable, "-c", LEAVE_A_PROCESS]
    left = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    pid = int(left)

    def commands() -> list[list[str]]:
        found = [each for each in orphans_since(os.getpid()) if each.pid == pid]
        return [each.command.split()[1:3] for each in found]

    # a program that has just started may have no arguments in /proc yet
    wait_for(lambda: commands() == [["-c", "import"]], "the process is found")
    os.kill(pid, signal.SIGKILL)

    wait_for(lambda: pid not in {each.pid for each in orphans_since(os.getpid())}, "its end")


def test_process_that_still_has_its_parent_is_not_found() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert child.pid not in {each.pid for each in orphans_since(os.getpid())}
        child.communicate(b"\n")


def test_process_that_an_ancestor_adopts_is_found() -> None:
    """As in containers and under service managers, where process 1 is not the new parent."""
    under_a_subreaper = f"""
import ctypes, os, subprocess, sys
PR_SET_CHILD_SUBREAPER = 36
assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
test = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-cov", {TEST!r}]
sys.exit(subprocess.run(test).returncode)
"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "COV_"))}
    command = [sys.executable, "-c", under_a_subreaper]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (run.returncode, "1 passed" in run.stdout) == (0, True), run.stdout + run.stderr
