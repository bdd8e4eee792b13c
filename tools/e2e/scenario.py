"""A scenario: a function with checks, the roles it needs, and how it is run."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from tools.e2e.accounts import MissingAccount
from tools.e2e.checks import Check, Checks
from tools.e2e.client import NoResponse, RetriesExhausted
from tools.e2e.context import RunContext, ScenarioContext, UnexpectedResponse

STARTS_MAX = 4


@dataclass(frozen=True)
class Scenario:
    """``execute`` sends requests and checks responses; ``needs`` are the roles it requires."""

    execute: Callable[[ScenarioContext], None]
    needs: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The name of the scenario's function, in words."""
        return self.execute.__name__.replace("_", " ")


def run_scenario(group: str, scenario: Scenario, run: RunContext) -> list[Check]:
    """Runs a scenario and returns its checks; an aborted scenario is a failed check.

    A call that may not be repeated and got no response restarts the scenario with new names, after
    the time that the response asked for, and the checks made so far are discarded.
    """
    reason, checks = "", Checks(group)
    for start in range(1, STARTS_MAX + 1):
        checks = Checks(group)
        context = ScenarioContext(run, checks)
        try:
            scenario.execute(context)
            context.deactivate_products()
            return checks.made
        except NoResponse as error:
            reason = f"started {STARTS_MAX} times without reaching the end: {error}"
            if start < STARTS_MAX:
                run.client.back_off(start, error.retry_after_seconds)
        except (MissingAccount, RetriesExhausted, UnexpectedResponse) as error:
            reason = str(error)
            break
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            # Reading a body that does not follow the contract may raise any of these.
            reason = f"a response with an unexpected structure: {error!r}"
            break
    return [*checks.made, Check(group, f"{scenario.title}: runs to the end", reason)]


def missing_roles(scenario: Scenario, without: Collection[str]) -> list[str]:
    """The roles that the scenario needs and that are not available."""
    return [role for role in scenario.needs if role in without]
