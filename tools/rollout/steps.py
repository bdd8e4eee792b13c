"""Moves the requests of functions to their newest revisions step by step, or returns them.

All functions of a roll-out take each step together: they are one release.  The state is in the
Services alone (``traffic.Claim``), so that a roll-out that was killed can be continued or returned
from anywhere.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from tools.rollout import traffic
from tools.rollout.cluster import ChangedByOthersError, Cluster
from tools.rollout.figures import Figures, Source
from tools.rollout.limits import Limits, exceeded
from tools.rollout.traffic import Claim, Json, ServiceState

# A claim that was not renewed for this long belongs to a process that has ended.
CLAIM_SECONDS = 60.0
RENEWAL_SECONDS = 20.0
RETURN_SECONDS = 45.0
RETURNS_AT_ONCE = 16
# Time without figures after which the new revision is withdrawn.
FIGURES_SECONDS = 30.0
UPDATES_MAX = 10

Change = tuple[list[Json], Claim | None]
Smoke = Callable[[str, str], list[str]]


class RolloutRejectedError(ValueError):
    """The roll-out cannot begin; the text says what to do."""


class CandidateFailedError(Exception):
    """A new revision must not receive requests; the text says which and why."""


@dataclass(frozen=True)
class Pace:
    """The steps of a roll-out, and how long each is watched."""

    percents: Sequence[int]
    step_seconds: float
    step_seconds_max: float
    check_seconds: float
    ready_seconds: float

    @classmethod
    def of(cls, steps: str, *seconds: float) -> Pace:
        """Steps as a list such as ``1,10,50,100``; ValueError unless they rise to 100."""
        percents = tuple(int(percent) for percent in steps.split(","))
        is_rising = list(percents) == sorted(set(percents))
        if not is_rising or percents[0] < 1 or percents[-1] != 100:
            raise ValueError(f"the steps {steps} do not rise from at least 1 to 100 percent")
        return cls(percents, *seconds)


class Rollout:
    """One roll-out of the Services with these names, by one owner."""

    def __init__(
        self, cluster: Cluster, names: Iterable[str], owner: str, *, pace: Pace, limits: Limits
    ) -> None:
        """Reads the Services and changes nothing; RolloutRejectedError when it cannot begin."""
        self._cluster, self._owner = cluster, owner
        self._pace, self._limits = pace, limits
        concerned = [state for state in cluster.services(names).values() if state.candidate]
        for state in concerned:
            check_can_begin(state)
        self._claims = {state.name: self._claim_of(state) for state in concerned}
        # a roll-out that was killed continues at the step that every function had reached
        shares = (state.percent_of(state.candidate or "") for state in concerned)
        self._percent = min(shares, default=0)
        self._read_at = 0.0

    @property
    def names(self) -> tuple[str, ...]:
        """The Services that have a new revision."""
        return tuple(self._claims)

    def run(self, smoke: Smoke, source: Source) -> None:
        """Takes every step; raises CandidateFailedError when a new revision must not go on.

        Raises ChangedByOthersError when another command took over one of the Services.
        """
        for name in self._claims:
            update(self._cluster, name, self._begin)
        for name, claim in self._claims.items():
            self._wait_for_ready(name, claim.candidate)
        self._set(self._percent)
        for name in self._claims:
            _smoke(smoke, name, self._url_of(name))
        for percent in self._pace.percents:
            # the first requests may come, and start the revision's first pod, before _set returns
            since = datetime.now(UTC)
            if percent > self._percent:
                self._set(percent)
            if percent == self._percent:
                self._watch(source, percent, since)
        for name in self._claims:
            update(self._cluster, name, self._finish)

    def give_back(self) -> None:
        """Returns all requests to the stable revisions of the Services that are still claimed."""
        give_back(self._cluster, {n: c.stable for n, c in self._claims.items()}, owner=self._owner)

    def _claim_of(self, state: ServiceState) -> Claim:
        return Claim(self._owner, state.stable, state.candidate or "", datetime.now(UTC))

    def _begin(self, state: ServiceState) -> Change:
        check_can_begin(state)
        return list(state.targets), self._claim_of(state)

    def _renewed(self, state: ServiceState) -> Change:
        return list(state.targets), self._own_claim(state)

    def _own_claim(self, state: ServiceState) -> Claim:
        if state.claim is None or state.claim.owner != self._owner:
            raise ChangedByOthersError(f"{state.name} was taken over by another command")
        return replace(state.claim, renewed_at=datetime.now(UTC))

    def _finish(self, state: ServiceState) -> Change:
        claim = self._own_claim(state)
        return traffic.finished(claim.candidate, previous=claim.stable), None

    def _set(self, percent: int) -> None:
        def moved(state: ServiceState) -> Change:
            claim = self._own_claim(state)
            return traffic.split(claim.stable, claim.candidate, percent), claim

        for name in self._claims:
            update(self._cluster, name, moved)
        self._percent = percent
        for name, claim in self._claims.items():
            targets = traffic.split(claim.stable, claim.candidate, percent)
            wait_until_applied(self._cluster, name, targets, self._pace.ready_seconds)

    def _renew(self) -> None:
        for name in self._claims:
            update(self._cluster, name, self._renewed)

    def _wait_for_ready(self, name: str, revision: str) -> None:
        until = time.monotonic() + self._pace.ready_seconds
        renewal = Renewal(self._renew)
        while time.monotonic() < until:
            is_ready, reason = self._cluster.readiness_of(revision)
            if is_ready:
                return
            if is_ready is False:
                raise CandidateFailedError(f"{name}: {revision} is not Ready: {reason}")
            renewal.when_due()
            time.sleep(min(1.0, self._pace.check_seconds))
        raise CandidateFailedError(
            f"{name}: {revision} was not Ready within {self._pace.ready_seconds:g} s"
        )

    def _url_of(self, name: str) -> str:
        target = self._cluster.services([name])[name].tagged(traffic.CANDIDATE)
        if target is None or not target.get("url"):
            raise CandidateFailedError(f"{name}: Knative has given the new revision no URL")
        return str(target["url"])

    def _watch(self, source: Source, percent: int, since: datetime) -> None:
        """Until the step's time is over and there were enough requests, or no more time."""
        began = time.monotonic()
        renewal, seconds, figures = Renewal(self._renew), 0.0, dict[str, Figures]()
        while seconds < self._pace.step_seconds or (
            seconds < self._pace.step_seconds_max and self._is_short_of_requests(figures)
        ):
            time.sleep(self._pace.check_seconds)
            figures = self._read(source, since, began)
            for name in self._claims:
                self._check(name, figures)
            renewal.when_due()
            seconds = time.monotonic() - began
        _show_step(percent, self._claims, figures)

    def _read(self, source: Source, since: datetime, began: float) -> dict[str, Figures]:
        """The figures of all revisions; empty for a short time while they cannot be read."""
        revisions = [r for c in self._claims.values() for r in (c.stable, c.candidate)]
        try:
            figures = dict(source(revisions, since))
        except OSError as error:
            if time.monotonic() - max(began, self._read_at) > FIGURES_SECONDS:
                raise CandidateFailedError(f"the figures cannot be read: {error}") from error
            return {}
        self._read_at = time.monotonic()
        return figures

    def _is_short_of_requests(self, figures: Mapping[str, Figures]) -> bool:
        counts = (figures.get(c.candidate, Figures()).requests for c in self._claims.values())
        return min(counts) < self._limits.requests_min

    def _check(self, name: str, figures: Mapping[str, Figures]) -> None:
        claim = self._claims[name]
        candidate = figures.get(claim.candidate, Figures())
        reason = exceeded(candidate, figures.get(claim.stable, Figures()), self._limits)
        if reason is not None:
            raise CandidateFailedError(f"{name}: {claim.candidate}: {reason}")


class Renewal:
    """Calls a function every 20 seconds."""

    def __init__(self, renew: Callable[[], None]) -> None:
        self._renew, self._next = renew, time.monotonic() + RENEWAL_SECONDS

    def when_due(self) -> None:
        """Calls it if 20 seconds have passed."""
        if time.monotonic() > self._next:
            self._renew()
            self._next = time.monotonic() + RENEWAL_SECONDS


def update(cluster: Cluster, name: str, change: Callable[[ServiceState], Change]) -> None:
    """Changes a Service; reads it again and repeats when it changed in between.

    Knative changes it with each status.  ``change`` raises when the Service may not be changed.
    """
    for attempt in range(UPDATES_MAX):
        state = cluster.services([name]).get(name)
        if state is None:
            raise RolloutRejectedError(f"there is no Service {name}")
        targets, claim = change(state)
        try:
            return cluster.set_traffic(state, targets, claim)
        except ChangedByOthersError:
            if attempt == UPDATES_MAX - 1:
                raise
    return None


def give_back(cluster: Cluster, stable: Mapping[str, str], *, owner: str | None = None) -> None:
    """Sends all requests of each Service to a revision, and ends its roll-out.

    With an owner only where the owner still has the claim.  All Services at the same time, so that
    one that cannot be changed delays no other; each repeats failures for 45 seconds.
    """
    deadline = time.monotonic() + RETURN_SECONDS

    def returned(state: ServiceState) -> Change:
        if owner is not None and (state.claim is None or state.claim.owner != owner):
            raise RolloutRejectedError(f"{state.name} is not claimed by this roll-out")
        return traffic.only(stable[state.name]), None

    def give_back_one(name: str) -> None:
        while True:
            try:
                with suppress(RolloutRejectedError):
                    update(cluster, name, returned)
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(1.0)

    with ThreadPoolExecutor(RETURNS_AT_ONCE) as threads:
        list(threads.map(give_back_one, stable))


def wait_until_applied(cluster: Cluster, name: str, targets: list[Json], seconds: float) -> None:
    """Until Knative reports the targets; CandidateFailedError when it does not in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(KeyError):
            if cluster.services([name])[name].has_applied(targets):
                return
        time.sleep(0.5)
    raise CandidateFailedError(f"{name}: Knative has not applied the traffic in {seconds:g} s")


def check_can_begin(state: ServiceState) -> None:
    """RolloutRejectedError unless the newest revision of a Service can be rolled out now."""
    if state.follows_latest:
        raise RolloutRejectedError(
            f"{state.name} sends all requests to its newest revision: run `shop rollout pin` "
            "before the upgrade that creates the next one"
        )
    claim = state.claim
    if claim is None:
        return
    age = (datetime.now(UTC) - claim.renewed_at).total_seconds()
    if age < CLAIM_SECONDS:
        raise RolloutRejectedError(
            f"{state.name} is in a roll-out of {claim.owner}, confirmed {age:.0f} s ago; "
            "`shop rollout return` ends it"
        )
    if claim.candidate != state.latest_created:
        raise RolloutRejectedError(
            f"{state.name} has a roll-out of {claim.candidate} that was interrupted, and the newer "
            f"revision {state.latest_created}: run `shop rollout return` first"
        )


def _smoke(smoke: Smoke, name: str, url: str) -> None:
    wrong = smoke(name, url)
    if wrong:
        raise CandidateFailedError(f"{name} at {url}: {'; '.join(wrong)}")
    print(f"{name}: {url} answers as it should", file=sys.stderr)


def _show_step(percent: int, claims: Mapping[str, Claim], figures: Mapping[str, Figures]) -> None:
    for name, claim in claims.items():
        seen = figures.get(claim.candidate, Figures())
        latency = "none" if seen.p95_seconds is None else f"{seen.p95_seconds * 1000:.0f} ms"
        counts = f"{seen.requests} requests, {seen.errors} errors, p95 {latency}"
        print(f"{percent:3d} %  {name}: {counts}", file=sys.stderr)
