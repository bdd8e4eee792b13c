"""``shop ledger verify``: verifies the sixteen hash chains and reports each chain's first error.

Stored hashes are not trusted: every hash is computed again from the posting's columns and from the
hash computed for the previous posting.  PostgreSQL formats the columns as the trigger
``chain_posting`` does; the SHA-256 is computed here, independently of the database.

An attacker with full write access could forge a whole chain and its head.  An anchor file, stored
outside the database, has the heads of an earlier verification; a later one must contain them.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import LiteralString

from tools.operations.reporting import EXIT_FOUND, EXIT_OK, show_json, show_table
from tools.operations.snapshot import snapshot

# chain, position in the chain, seq, hash before, hash, and the hashed columns of a posting
Link = tuple[int, int, int, bytes, bytes, bytes]

CHAINS = range(16)
ROWS_FETCHED = 20_000

# The chain number is computed from the order id, so a posting moved to another chain is an error.
LINKS: LiteralString = """
select chain, chain_seq, seq, prev_hash, hash, convert_to(concat_ws('|',
  get_byte(uuid_send(order_id), 15) % 16, chain_seq, seq, kind, source_id, order_id, debit, credit,
  amount_minor, currency, (extract(epoch from posted_at) * 1000000)::bigint), 'UTF8')
from shop.ledger order by chain, chain_seq, seq
"""

HEADS: LiteralString = """
select chain, chain_seq, hash from shop.ledger_chains order by chain
"""

COUNT: LiteralString = """
select count(*) from shop.ledger
"""


@dataclass(frozen=True)
class Head:
    """The last posting of a chain: its position and hash; position 0 is an empty chain."""

    position: int
    hash: bytes


@dataclass(frozen=True)
class ChainError:
    """The first error of a chain; ``seq`` is None when the posting is missing."""

    chain: int
    chain_seq: int
    seq: int | None
    what: str


@dataclass(frozen=True)
class Verification:
    """The computed heads of the valid chains, and the errors of the others."""

    heads: dict[int, Head]
    errors: list[ChainError]
    rows: int
    seconds: float


def run_verify(database_url: str, *, anchor: Path | None, as_json: bool) -> int:
    """Verifies and prints all chains; returns 0 when all are valid, else 1.

    The anchor file is updated only when all chains are valid.
    """
    verification = verify(database_url, _read_anchor(anchor))
    if as_json:
        show_json(_as_dict(verification))
    else:
        _show(verification)
    if verification.errors:
        return EXIT_FOUND
    if anchor is not None:
        _write_anchor(anchor, verification.heads)
    return EXIT_OK


def verify(url: str, anchor: Mapping[int, Head] | None = None) -> Verification:
    """Verifies all chains in one snapshot, streaming; stops in each chain at its first error."""
    began = time.monotonic()
    with snapshot(url) as connection:
        stored = {row[0]: Head(row[1], row[2]) for row in connection.execute(HEADS, binary=True)}
        with connection.cursor(name="links", binary=True) as cursor:
            cursor.itersize = ROWS_FETCHED
            cursor.execute(LINKS)
            heads, errors = _verify_chains(cursor, anchor or {})
        rows = sum(count for (count,) in connection.execute(COUNT))
    for chain, head in list(heads.items()):
        error = _compare_head(chain, head, stored.get(chain))
        if error is not None:
            errors.append(error)
            del heads[chain]
    errors.sort(key=lambda error: error.chain)
    return Verification(heads, errors, rows, time.monotonic() - began)


def _verify_chains(
    rows: Iterable[Link], anchor: Mapping[int, Head]
) -> tuple[dict[int, Head], list[ChainError]]:
    heads = {chain: Head(0, _initial_hash(chain)) for chain in CHAINS}
    errors: list[ChainError] = []
    for chain, links in groupby(rows, key=itemgetter(0)):
        result = _verify_chain(chain, links, anchor.get(chain))
        if isinstance(result, ChainError):
            heads.pop(chain, None)
            errors.append(result)
        else:
            heads[chain] = result
    for chain, known in anchor.items():
        if chain in heads and heads[chain].position < known.position:
            position = heads.pop(chain).position + 1
            what = f"missing: the anchor has {known.position} postings"
            errors.append(ChainError(chain, position, None, what))
    return heads, errors


def _verify_chain(chain: int, links: Iterable[Link], known: Head | None) -> Head | ChainError:
    position, computed = 0, _initial_hash(chain)
    for _, chain_seq, seq, prev_hash, stored, content in links:
        if chain_seq > position + 1:
            return ChainError(
                chain, position + 1, None, f"missing: the next posting is {chain_seq}"
            )
        if chain_seq <= position:
            return ChainError(chain, chain_seq, seq, "a second posting at this position")
        if prev_hash != computed:
            return ChainError(chain, chain_seq, seq, "does not follow the previous posting")
        computed = sha256(computed + content).digest()
        if computed != stored:
            return ChainError(chain, chain_seq, seq, "differs from its hash")
        if known is not None and known.position == chain_seq and known.hash != computed:
            return ChainError(chain, chain_seq, seq, "differs from the anchor")
        position = chain_seq
    return Head(position, computed)


def _compare_head(chain: int, head: Head, stored: Head | None) -> ChainError | None:
    """Compares the head that the trigger stored with the last posting of the chain."""
    if chain not in CHAINS:
        return ChainError(chain, 1, None, "unknown chain number")
    if stored is None:
        return ChainError(chain, head.position, None, "the chain has no head")
    if stored.position > head.position:
        what = f"missing: the head is at {stored.position}"
        return ChainError(chain, head.position + 1, None, what)
    if stored != head:
        return ChainError(chain, head.position, None, "the head is not the last posting")
    return None


def _initial_hash(chain: int) -> bytes:
    return sha256(f"msa-shop ledger chain {chain}".encode()).digest()


def _read_anchor(file: Path | None) -> dict[int, Head]:
    """The heads of an earlier verification; none without a file.  Raises ValueError."""
    if file is None or not file.exists():
        return {}
    try:
        heads = json.loads(file.read_text(encoding="utf-8"))["heads"]
        return {int(c): Head(h["chain_seq"], bytes.fromhex(h["hash"])) for c, h in heads.items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is not an anchor file: {error!r}") from error


def _write_anchor(file: Path, heads: Mapping[int, Head]) -> None:
    unfinished = file.with_name(f"{file.name}.{os.getpid()}")
    unfinished.write_text(json.dumps({"heads": _heads_as_dict(heads)}, indent=2), encoding="utf-8")
    unfinished.rename(file)


def _heads_as_dict(heads: Mapping[int, Head]) -> dict[str, dict[str, object]]:
    return {
        str(c): {"chain_seq": h.position, "hash": h.hash.hex()} for c, h in sorted(heads.items())
    }


def _show(verification: Verification) -> None:
    rate = verification.rows / verification.seconds
    print(f"{verification.rows} postings in {verification.seconds:.1f} s ({rate:,.0f} a second)")
    if verification.errors:
        rows = [(e.chain, e.chain_seq, e.seq, e.what) for e in verification.errors]
        show_table(("chain", "chain_seq", "seq", "what"), rows)
    print(f"{len(verification.heads)} chains valid, {len(verification.errors)} invalid")


def _as_dict(verification: Verification) -> dict[str, object]:
    return {
        "rows": verification.rows,
        "seconds": round(verification.seconds, 3),
        "heads": _heads_as_dict(verification.heads),
        "breaks": [vars(error) for error in verification.errors],
    }
