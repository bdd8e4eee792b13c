"""The commands ``shop rollout``: pin, run, return, status, smoke."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from types import FrameType

from shop.registry import all_specs, spec_of
from shop.runtime import setting_checks
from tools.operations.reporting import EXIT_FAILED, EXIT_FOUND, EXIT_OK, show_json, show_table
from tools.render.objects import name_of
from tools.rollout import traffic
from tools.rollout.cluster import Cluster, KubectlError
from tools.rollout.figures import Source, from_logs, from_prometheus
from tools.rollout.limits import Limits
from tools.rollout.smoke import smoke
from tools.rollout.steps import (
    CandidateFailedError,
    Change,
    Pace,
    Rollout,
    RolloutRejectedError,
    Smoke,
    give_back,
    update,
)
from tools.rollout.traffic import ServiceState

COLUMNS = ("function", "stable", "percent", "candidate", "percent", "previous", "roll-out of")


def run_rollout(
    cluster: Cluster,
    functions: Sequence[str],
    *,
    pace: Pace,
    limits: Limits,
    prometheus: str = "",
    smoke_from: str = "",
    as_json: bool = False,
) -> int:
    """Moves the requests of functions to their new revisions; 1 when they were returned."""
    owner = f"{socket.gethostname()}-{os.getpid()}"
    names = _existing(cluster, functions)
    rollout = Rollout(cluster, names, owner, pace=pace, limits=limits)
    if not rollout.names:
        return _end(
            "nothing to do", "every function's newest revision has all requests", as_json=as_json
        )
    if smoke_from:
        _check_workload(smoke_from, cluster)
    source: Source = from_prometheus(prometheus, cluster) if prometheus else from_logs(cluster)
    try:
        with _interrupted_by_termination():
            rollout.run(_smoke_from(smoke_from, cluster), source)
    except CandidateFailedError as error:
        return _returned(rollout, str(error), as_json=as_json)
    except KeyboardInterrupt:
        return _returned(rollout, "interrupted", as_json=as_json)
    except BaseException:
        rollout.give_back()
        raise
    return _end("rolled out", functions=rollout.names, as_json=as_json)


def run_pin(cluster: Cluster, functions: Sequence[str], *, as_json: bool = False) -> int:
    """Names the revisions that receive all requests, so that the next one receives none."""

    def pinned(state: ServiceState) -> Change:
        if state.claim is not None:
            raise RolloutRejectedError(f"{state.name} is in a roll-out of {state.claim.owner}")
        if not state.stable:
            raise RolloutRejectedError(f"{state.name} has no revision that receives requests yet")
        targets = traffic.only(state.stable) if state.follows_latest else list(state.targets)
        return targets, None

    return _change_each(cluster, functions, pinned, as_json=as_json)


def run_unpin(cluster: Cluster, functions: Sequence[str], *, as_json: bool = False) -> int:
    """Lets each new revision receive all requests at once, Knative's default."""

    def unpinned(_state: ServiceState) -> Change:
        return [{"latestRevision": True, "percent": 100}], None

    return _change_each(cluster, functions, unpinned, as_json=as_json)


def run_return(cluster: Cluster, functions: Sequence[str], *, as_json: bool = False) -> int:
    """Ends roll-outs in progress, and sends all requests to the revisions before the last."""
    targets = dict[str, str]()
    for name, state in _existing(cluster, functions).items():
        previous = state.tagged(traffic.PREVIOUS)
        if state.claim is not None:
            targets[name] = state.claim.stable
        elif previous is not None:
            targets[name] = str(previous["revisionName"])
    give_back(cluster, targets)
    if as_json:
        show_json(targets)
    else:
        for name, revision in targets.items():
            print(f"{name}: {revision}")
    return EXIT_OK if targets else EXIT_FOUND


def run_status(cluster: Cluster, functions: Sequence[str], *, as_json: bool) -> int:
    """Prints how each function's requests are divided; 1 when a roll-out is in progress."""
    states = _existing(cluster, functions).values()
    rows = [_status_row(state) for state in states]
    if as_json:
        show_json([_status_document(row) for row in rows])
    else:
        show_table(COLUMNS, rows)
    return EXIT_FOUND if any(state.claim for state in states) else EXIT_OK


def run_smoke(function: str, url: str, *, as_json: bool = False) -> int:
    """Sends the smoke requests to a URL of a function; 1 when one is answered wrongly.

    Raises ValueError for what is not a URL.
    """
    setting_checks.CHECKS["broker_url"](url)
    wrong = smoke(spec_of(function), url)
    if as_json:
        show_json({"wrong": wrong})
    else:
        for line in wrong:
            print(line)
    return EXIT_FOUND if wrong else EXIT_OK


def _existing(cluster: Cluster, functions: Sequence[str]) -> dict[str, ServiceState]:
    """The Services of these functions, by default of all that the namespace has.

    Raises RolloutRejectedError for one that is named and missing, and when there is none.
    """
    names = [name_of(spec_of(function)) for function in functions]
    states = cluster.services(names or [name_of(spec) for spec in all_specs()])
    missing = [name for name in names if name not in states]
    if missing or not states:
        raise RolloutRejectedError(
            f"the namespace {cluster.namespace} has no Knative Service "
            f"{', '.join(missing) or 'of the shop'}: is --namespace or --context another?"
        )
    return states


def _function_of(service: str) -> str:
    return next(spec.name for spec in all_specs() if name_of(spec) == service)


def _change_each(
    cluster: Cluster,
    functions: Sequence[str],
    change: Callable[[ServiceState], Change],
    *,
    as_json: bool,
) -> int:
    names = list(_existing(cluster, functions))
    for name in names:
        update(cluster, name, change)
    if as_json:
        show_json(names)
    return EXIT_OK


def _end(result: str, reason: str = "", *, functions: Sequence[str] = (), as_json: bool) -> int:
    """Prints how a roll-out ended."""
    if as_json:
        show_json({"result": result, "reason": reason, "functions": list(functions)})
    else:
        print(f"{result}: {', '.join(functions) or reason}")
    return EXIT_OK


def _check_workload(workload: str, cluster: Cluster) -> None:
    """Raises KubectlError unless the workload can send the smoke requests."""
    try:
        cluster.execute(workload, "shop", "--version")
    except KubectlError as error:
        raise KubectlError(
            f"{workload} cannot send the smoke requests: {error}; give it a pod with "
            f"`kubectl scale {workload} --replicas=1 --namespace={cluster.namespace}`"
        ) from error


def _smoke_from(workload: str, cluster: Cluster) -> Smoke:
    """Smoke requests from this machine, or from a container in the cluster."""

    def from_here(name: str, url: str) -> list[str]:
        return smoke(spec_of(_function_of(name)), url)

    def from_cluster(name: str, url: str) -> list[str]:
        command = ("shop", "rollout", "smoke", _function_of(name), url)
        try:
            cluster.execute(workload, *command)
        except OSError as error:
            return [str(error)]
        return []

    return from_cluster if workload else from_here


def _returned(rollout: Rollout, reason: str, *, as_json: bool) -> int:
    print(f"returning: {reason}", file=sys.stderr)
    # a second Ctrl-C must not leave the requests divided
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        rollout.give_back()
    except OSError as error:
        print(f"not returned, run `shop rollout return`: {error}", file=sys.stderr)
        return EXIT_FAILED
    _end("returned to the stable revisions", reason, functions=rollout.names, as_json=as_json)
    return EXIT_FOUND


@contextmanager
def _interrupted_by_termination() -> Generator[None]:
    """SIGTERM, as of a CI job that is cancelled, is handled like Ctrl-C."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _status_row(state: ServiceState) -> tuple[object, ...]:
    previous = state.tagged(traffic.PREVIOUS)
    candidate = state.candidate
    return (
        _function_of(state.name),
        state.stable,
        100 if state.follows_latest else state.percent_of(state.stable),
        candidate or "",
        state.percent_of(candidate) if candidate else "",
        previous["revisionName"] if previous else "",
        state.claim.owner if state.claim else "",
    )


def _status_document(row: tuple[object, ...]) -> dict[str, object]:
    keys = (
        "function",
        "stable",
        "stablePercent",
        "candidate",
        "candidatePercent",
        "previous",
        "owner",
    )
    return dict(zip(keys, row, strict=True))
