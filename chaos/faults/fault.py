"""The definition of a scheduled fault."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from chaos.environment import Environment

FaultGroup = Literal["processes", "servers", "provider", "messages", "webhooks", "mails"]


class FaultUnavailable(Exception):
    """The machine cannot produce this fault; the text names what is missing."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault of the catalogue.

    ``inject`` produces the fault, waits, removes it and returns a description of what it did.  It
    raises ``FaultUnavailable`` when the machine cannot produce the fault.  Faults of one group
    never overlap; faults of different groups do.
    """

    id: str
    title: str
    group: FaultGroup
    inject: Callable[[Environment], Awaitable[str]]
