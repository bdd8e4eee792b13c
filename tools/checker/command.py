"""``shop check``: ask every invariant of one snapshot and say which are broken."""

from __future__ import annotations

from tools.checker import provider_transactions
from tools.checker.evaluate import Outside, Verdict, ask
from tools.checker.provider_transactions import ProviderAccess
from tools.operations.reporting import FINE, FOUND, show_json, show_table

# What only somebody else can tell; without their word these are not asked, and that is said.
NEED_BOOKS = ("I-11", "Q-06")
NEED_CLIENTS = ("Q-11", "Q-12")


def run_check(
    database_url: str, access: ProviderAccess | None, *, at_rest: bool, as_json: bool
) -> int:
    """0 when nothing is broken, 1 when something is; raises when it cannot be known.

    The provider's books are read before the snapshot: a payment is committed before its call, so
    whatever the books show must have its row by then.
    """
    outside = provider_transactions.outside(access) if access else Outside()
    unknown = dict.fromkeys(NEED_CLIENTS, "needs the clients' log")
    if access is None:
        unknown |= dict.fromkeys(NEED_BOOKS, "needs the provider's books")
    elif access.kind != "sandbox":
        unknown["Q-06"] = "the provider lists its last days only: shop reconcile"
    verdicts = ask(database_url, outside, at_rest=at_rest, unknown=unknown)
    if as_json:
        show_json([_as_dict(verdict) for verdict in verdicts])
    else:
        _show(verdicts)
    return FOUND if any(verdict.state == "broken" for verdict in verdicts) else FINE


def _show(verdicts: list[Verdict]) -> None:
    show_table(
        ("id", "state", "ms", "invariant", "rows"),
        [
            (v.invariant.id, v.state, f"{v.seconds * 1000:.0f}", v.invariant.what, _rows(v))
            for v in verdicts
        ],
    )
    broken = sum(verdict.state == "broken" for verdict in verdicts)
    holds = sum(verdict.state == "holds" for verdict in verdicts)
    print(f"{holds} hold, {broken} broken, {len(verdicts) - holds - broken} not asked")


def _rows(verdict: Verdict) -> str:
    if verdict.state == "not asked":
        return verdict.reason
    return ", ".join(" ".join(str(cell) for cell in row) for row in verdict.rows)


def _as_dict(verdict: Verdict) -> dict[str, object]:
    return {
        "id": verdict.invariant.id,
        "what": verdict.invariant.what,
        "state": verdict.state,
        "reason": verdict.reason or None,
        "seconds": round(verdict.seconds, 4),
        "rows": [[str(cell) for cell in row] for row in verdict.rows],
    }
