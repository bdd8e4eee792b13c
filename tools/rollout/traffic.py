"""How a Knative Service divides its requests between revisions, and the state of its roll-out.

The roll-out owns ``spec.traffic`` and one annotation; the chart owns everything else and sets
neither.  A Service that names its revision sends nothing to the next one, so ``helm upgrade``
creates a revision at 0 %.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

Json = dict[str, Any]

ANNOTATION = "msa-shop/rollout"
CANDIDATE, PREVIOUS = "candidate", "previous"  # tags


@dataclass(frozen=True)
class Claim:
    """Who moves a Service's requests between two revisions, and when that was last confirmed."""

    owner: str
    stable: str
    candidate: str
    renewed_at: datetime

    def as_text(self) -> str:
        """The value of the annotation."""
        fields = {"owner": self.owner, "stable": self.stable, "candidate": self.candidate}
        return json.dumps({**fields, "renewedAt": self.renewed_at.isoformat()})


@dataclass(frozen=True)
class ServiceState:
    """What the API server knows about one Service."""

    name: str
    version: str
    targets: tuple[Json, ...]
    observed: tuple[Json, ...]
    latest_created: str
    claim: Claim | None

    @property
    def follows_latest(self) -> bool:
        """Whether each new revision receives all requests at once, which is Knative's default."""
        return not self.targets or any(t.get("latestRevision") for t in self.targets)

    @property
    def stable(self) -> str:
        """The revision that receives all requests, or did before the roll-out in progress."""
        if self.claim is not None:
            return self.claim.stable
        targets = self.observed if self.follows_latest else self.targets
        if not targets:
            return ""
        most = max(targets, key=lambda target: target.get("percent", 0))
        return str(most.get("revisionName", ""))

    @property
    def candidate(self) -> str | None:
        """The newest revision, None when it is the stable one."""
        return self.latest_created if self.latest_created != self.stable else None

    def percent_of(self, revision: str) -> int:
        """The share of requests that a revision is to receive."""
        return sum(t.get("percent", 0) for t in self.targets if t.get("revisionName") == revision)

    def tagged(self, tag: str) -> Json | None:
        """The observed target with a tag."""
        return next((target for target in self.observed if target.get("tag") == tag), None)

    def has_applied(self, targets: list[Json]) -> bool:
        """Whether Knative reports these targets; their URLs are its own."""
        return _compared(self.observed) == _compared(targets)


def service_state(document: Json) -> ServiceState:
    """Reads a Service as the API returns it."""
    metadata, status = document["metadata"], document.get("status", {})
    return ServiceState(
        name=metadata["name"],
        version=metadata["resourceVersion"],
        targets=tuple(document["spec"].get("traffic", ())),
        observed=tuple(status.get("traffic", ())),
        latest_created=status.get("latestCreatedRevisionName", ""),
        claim=_claim(metadata.get("annotations", {}).get(ANNOTATION)),
    )


def split(stable: str, candidate: str, percent: int) -> list[Json]:
    """The targets of a step; the candidate has a tag, and so a URL of its own."""
    return [
        {"revisionName": stable, "percent": 100 - percent},
        {"revisionName": candidate, "percent": percent, "tag": CANDIDATE},
    ]


def finished(stable: str, previous: str) -> list[Json]:
    """The targets after a roll-out; the tag keeps the previous revision from being deleted."""
    return [
        {"revisionName": stable, "percent": 100},
        {"revisionName": previous, "percent": 0, "tag": PREVIOUS},
    ]


def only(revision: str) -> list[Json]:
    """The targets that send everything to one revision."""
    return [{"revisionName": revision, "percent": 100}]


def _claim(text: str | None) -> Claim | None:
    if not text:
        return None
    fields = json.loads(text)
    renewed_at = datetime.fromisoformat(fields["renewedAt"])
    return Claim(fields["owner"], fields["stable"], fields["candidate"], renewed_at)


def _compared(targets: tuple[Json, ...] | list[Json]) -> list[tuple[str, int, str]]:
    return sorted(
        (str(t.get("revisionName", "")), int(t.get("percent") or 0), str(t.get("tag", "")))
        for t in targets
    )
