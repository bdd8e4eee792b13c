"""What a kind of fault is to a run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from chaos.environment import Environment

Lane = Literal["processes", "servers", "provider", "messages"]


class NotHere(Exception):
    """This fault cannot be made on this machine; the text says what it lacks."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One row of the catalogue: ``inject`` puts a fault in, waits, heals it, says what it did.

    Kinds of one lane exclude each other; those of different lanes meet.  ``inject`` raises
    ``NotHere`` when the machine cannot do it.
    """

    id: str
    what: str
    lane: Lane
    inject: Callable[[Environment], Awaitable[str]]
