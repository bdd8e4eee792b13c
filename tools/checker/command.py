"""``shop check``: evaluates every invariant in one snapshot and prints which are broken."""

from __future__ import annotations

from tools.checker import provider_transactions
from tools.checker.evaluate import ExternalRecords, InvariantResult, evaluate_invariants
from tools.checker.provider_transactions import ProviderAccess
from tools.operations.reporting import EXIT_FOUND, EXIT_OK, show_json, show_table

# These invariants compare the database with other records; without the records they are skipped.
NEED_PROVIDER = ("I-11", "Q-06")
NEED_CLIENTS = ("Q-11", "Q-12")


def run_check(
    database_url: str,
    access: ProviderAccess | None,
    *,
    at_rest: bool,
    only_broken: bool,
    as_json: bool,
) -> int:
    """Evaluates every invariant; returns 0 when none is broken, else 1.

    Prints them all, or only the broken ones.

    The provider's transactions are read before the snapshot: a payment's row is committed before
    the provider is called, so the snapshot contains the row of every transaction that was read.
    """
    external = provider_transactions.external_records(access) if access else ExternalRecords()
    skipped: dict[str, str] = dict.fromkeys(NEED_CLIENTS, "needs the clients' request log")
    if access is None:
        skipped |= dict.fromkeys(NEED_PROVIDER, "needs the provider's transactions")
    elif access.kind != "sandbox":
        skipped["Q-06"] = "the provider lists only its last days; use shop reconcile"
    results = evaluate_invariants(database_url, external, at_rest=at_rest, skipped=skipped)
    broken = [result for result in results if result.state == "broken"]
    shown = broken if only_broken else results
    if as_json:
        show_json([_as_dict(result) for result in shown])
    else:
        _show(shown)
        holds = sum(result.state == "holds" for result in results)
        rest = len(results) - holds - len(broken)
        print(f"{holds} hold, {len(broken)} broken, {rest} skipped")
    return EXIT_FOUND if broken else EXIT_OK


def _show(results: list[InvariantResult]) -> None:
    show_table(
        ("id", "state", "ms", "invariant", "rows"),
        [
            (r.invariant.id, r.state, f"{r.seconds * 1000:.0f}", r.invariant.what, _rows(r))
            for r in results
        ],
    )


def _rows(result: InvariantResult) -> str:
    if result.state == "skipped":
        return result.reason
    return ", ".join(" ".join(str(cell) for cell in row) for row in result.rows)


def _as_dict(result: InvariantResult) -> dict[str, object]:
    return {
        "id": result.invariant.id,
        "what": result.invariant.what,
        "state": result.state,
        "reason": result.reason or None,
        "seconds": round(result.seconds, 4),
        "rows": [[str(cell) for cell in row] for row in result.rows],
    }
