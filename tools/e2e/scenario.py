"""A scenario: a short story with checks, who must take part, and how it is run."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from tools.e2e.accounts import NoAccount
from tools.e2e.checks import Check, Checks
from tools.e2e.client import GaveUp, NoAnswer
from tools.e2e.harness import Cast, Stage, Unexpected

STARTS_MAX = 4


@dataclass(frozen=True)
class Scenario:
    """``play`` tells the story on a stage; ``needs`` are the roles it cannot do without."""

    play: Callable[[Stage], None]
    needs: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The story's name in words."""
        return self.play.__name__.replace("_", " ")


def run_scenario(group: str, scenario: Scenario, cast: Cast) -> list[Check]:
    """The checks of a scenario; whatever keeps it from its end is a failed check.

    A call that may not be repeated and got no answer starts the story over, with new names, and the
    checks made so far are forgotten.
    """
    reason = ""
    for _ in range(STARTS_MAX):
        checks = Checks(group)
        stage = Stage(cast, checks)
        try:
            scenario.play(stage)
            stage.put_away()
            return checks.made
        except NoAnswer as error:
            reason = f"started {STARTS_MAX} times and never came through: {error}"
        except (NoAccount, GaveUp, Unexpected) as error:
            reason = str(error)
            break
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            # A body of another shape than the contract's breaks the story wherever it is read.
            reason = f"an answer of another shape: {error!r}"
            break
    return [*checks.made, Check(group, f"{scenario.title} comes to its end", reason)]


def left_out(scenario: Scenario, without: Collection[str]) -> list[str]:
    """The roles this scenario needs and the caller said there are none of."""
    return [role for role in scenario.needs if role in without]
