"""``shop ledger verify``: walk the sixteen hash chains and name the first posting that is not true.

No stored hash is believed: each link is hashed here again, from the posting's columns and from the
hash that was computed for the link before it.  PostgreSQL only spells the columns, as the trigger
``chain_posting`` did; the SHA-256 is ours, so what reads the disk does not judge it.

Whoever may write everything could forge a whole chain and its head.  An anchor is what they cannot
reach: the heads of an earlier walk, kept in a file elsewhere, which a later walk has to meet again.
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
from typing import Any, LiteralString

from tools.operations.reporting import EXIT_FOUND, EXIT_OK, show_json, show_table
from tools.operations.snapshot import snapshot

CHAINS = range(16)
ROWS_FETCHED = 20_000

# The chain is spelled as the order dictates it, so a posting in another chain does not fit there.
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
    """The last link of a chain; place 0 is the chain's beginning."""

    place: int
    hash: bytes


@dataclass(frozen=True)
class Break:
    """The first place of a chain that is not true; ``seq`` is None where no row is."""

    chain: int
    chain_seq: int
    seq: int | None
    what: str


@dataclass(frozen=True)
class Walk:
    """What a walk found: the computed heads of the chains that hold, and the others' breaks."""

    heads: dict[int, Head]
    breaks: list[Break]
    rows: int
    seconds: float


def run_verify(database_url: str, *, anchor: Path | None, as_json: bool) -> int:
    """0 when every chain holds, 1 when one does not; the anchor is renewed only when all hold."""
    walk = verify(database_url, _read_anchor(anchor))
    if as_json:
        show_json(_as_dict(walk))
    else:
        _show(walk)
    if walk.breaks:
        return EXIT_FOUND
    if anchor is not None:
        _write_anchor(anchor, walk.heads)
    return EXIT_OK


def verify(url: str, anchor: Mapping[int, Head] | None = None) -> Walk:
    """Walks all chains of one snapshot, streaming; stops in each chain at its first break."""
    began = time.monotonic()
    with snapshot(url) as connection:
        stored = {row[0]: Head(row[1], row[2]) for row in connection.execute(HEADS, binary=True)}
        with connection.cursor(name="links", binary=True) as cursor:
            cursor.itersize = ROWS_FETCHED
            cursor.execute(LINKS)
            heads, breaks = _walk_all(cursor, anchor or {})
        rows = sum(count for (count,) in connection.execute(COUNT))
    for chain, head in list(heads.items()):
        found = _compare(chain, head, stored.get(chain))
        if found is not None:
            breaks.append(found)
            del heads[chain]
    breaks.sort(key=lambda found: found.chain)
    return Walk(heads, breaks, rows, time.monotonic() - began)


def _walk_all(
    rows: Iterable[tuple[Any, ...]], anchor: Mapping[int, Head]
) -> tuple[dict[int, Head], list[Break]]:
    heads = {chain: Head(0, _beginning(chain)) for chain in CHAINS}
    breaks = []
    for chain, links in groupby(rows, key=itemgetter(0)):
        end = _walk(chain, links, anchor.get(chain))
        if isinstance(end, Break):
            heads.pop(chain, None)
            breaks.append(end)
        else:
            heads[chain] = end
    for chain, known in anchor.items():
        if chain in heads and heads[chain].place < known.place:
            place = heads.pop(chain).place + 1
            breaks.append(Break(chain, place, None, f"missing: the anchor knows {known.place}"))
    return heads, breaks


def _walk(chain: int, links: Iterable[tuple[Any, ...]], known: Head | None) -> Head | Break:
    place, link = 0, _beginning(chain)
    for _, chain_seq, seq, prev_hash, stored, words in links:
        if chain_seq > place + 1:
            return Break(chain, place + 1, None, f"missing: the next posting is {chain_seq}")
        if chain_seq <= place:
            return Break(chain, chain_seq, seq, "a second posting in one place")
        if prev_hash != link:
            return Break(chain, chain_seq, seq, "does not follow the posting before it")
        link = sha256(link + words).digest()
        if link != stored:
            return Break(chain, chain_seq, seq, "is not what was posted")
        if known is not None and known.place == chain_seq and known.hash != link:
            return Break(chain, chain_seq, seq, "is not what the anchor knows")
        place = chain_seq
    return Head(place, link)


def _compare(chain: int, head: Head, stored: Head | None) -> Break | None:
    """The head that the trigger keeps against the last link that is there."""
    if chain not in CHAINS:
        return Break(chain, 1, None, "there is no such chain")
    if stored is None:
        return Break(chain, head.place, None, "the chain has no head")
    if stored.place > head.place:
        return Break(chain, head.place + 1, None, f"missing: the head is at {stored.place}")
    if stored != head:
        return Break(chain, head.place, None, "the chain's head is not its last posting")
    return None


def _beginning(chain: int) -> bytes:
    return sha256(f"msa-shop ledger chain {chain}".encode()).digest()


def _read_anchor(file: Path | None) -> dict[int, Head]:
    """The heads an earlier walk left; none when there is no file yet.  Raises ValueError."""
    if file is None or not file.exists():
        return {}
    try:
        heads = json.loads(file.read_text(encoding="utf-8"))["heads"]
        return {int(c): Head(h["chain_seq"], bytes.fromhex(h["hash"])) for c, h in heads.items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is no anchor: {error!r}") from error


def _write_anchor(file: Path, heads: Mapping[int, Head]) -> None:
    unfinished = file.with_name(f"{file.name}.{os.getpid()}")
    unfinished.write_text(json.dumps({"heads": _heads_as_dict(heads)}, indent=2), encoding="utf-8")
    unfinished.rename(file)


def _heads_as_dict(heads: Mapping[int, Head]) -> dict[str, dict[str, object]]:
    return {str(c): {"chain_seq": h.place, "hash": h.hash.hex()} for c, h in sorted(heads.items())}


def _show(walk: Walk) -> None:
    rate = walk.rows / walk.seconds
    print(f"{walk.rows} postings in {walk.seconds:.1f} s ({rate:,.0f} a second)")
    if walk.breaks:
        rows = [(b.chain, b.chain_seq, b.seq, b.what) for b in walk.breaks]
        show_table(("chain", "chain_seq", "seq", "what"), rows)
    print(f"{len(walk.heads)} chains hold, {len(walk.breaks)} do not")


def _as_dict(walk: Walk) -> dict[str, object]:
    return {
        "rows": walk.rows,
        "seconds": round(walk.seconds, 3),
        "heads": _heads_as_dict(walk.heads),
        "breaks": [vars(b) for b in walk.breaks],
    }
