"""``shop ledger verify``: valid chains pass, and each chain's first error is reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from tests.harness import FlowHarness
from tests.tools.operations.conftest import CommandLine
from tests.tools.operations.many_postings import fill_ledger
from tools.operations.ledger import verify

MANY = 20_000
ROWS_A_SECOND_MIN = 1_000_000 / 60

# unauthorised changes to the posting at chain 3, position 40
HERE = "where chain = 3 and chain_seq = 40"
FLIP = "set_byte({column}, 7, get_byte({column}, 7) # 1)"
CHANGES = {
    "amount": f"update shop.ledger set amount_minor = amount_minor + 1 {HERE}",
    "kind": f"update shop.ledger set kind = 'REFUND' {HERE}",
    "source": f"update shop.ledger set source_id = gen_random_uuid() {HERE}",
    "order": f"update shop.ledger set order_id = gen_random_uuid() {HERE}",
    "debit": f"update shop.ledger set debit = 'psp_receivablf' {HERE}",
    "credit": f"update shop.ledger set credit = 'order_escrov' {HERE}",
    "currency": f"update shop.ledger set currency = 'KRX' {HERE}",
    "time": f"update shop.ledger set posted_at = posted_at + interval '1 microsecond' {HERE}",
    "hash": f"update shop.ledger set hash = {FLIP.format(column='hash')} {HERE}",
    "prev_hash": f"update shop.ledger set prev_hash = {FLIP.format(column='prev_hash')} {HERE}",
    "seq": f"update shop.ledger set seq = 9000000 {HERE}",
    "swap": "update shop.ledger set chain_seq = case chain_seq when 40 then 41 else 40 end "
    "where chain = 3 and chain_seq in (40, 41)",
}


@pytest.fixture(scope="module")
def long_ledger(postgres_url: str, template_url: str) -> Any:
    """A database with many valid postings."""
    name, template = f"long_ledger_{uuid4().hex[:8]}", template_url.rsplit("/", 1)[1]
    url = postgres_url.rsplit("/", 1)[0] + f"/{name}"
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f"create database {name} template {template}".encode())
        fill_ledger(url, MANY)
        yield url
        admin.execute(f"drop database {name} with (force)".encode())


@pytest.fixture
def tampered(long_ledger: str, postgres_url: str, request: pytest.FixtureRequest) -> Any:
    """A copy of the long ledger after ``request.param``, run without triggers and constraints."""
    name, template = f"tampered_{uuid4().hex[:8]}", long_ledger.rsplit("/", 1)[1]
    url = postgres_url.rsplit("/", 1)[0] + f"/{name}"
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f"create database {name} template {template}".encode())
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("set session_replication_role = replica")
            connection.execute("alter table shop.ledger alter seq drop identity")
            assert connection.execute(request.param.encode()).rowcount > 0
        yield url
        admin.execute(f"drop database {name} with (force)".encode())


def _sequence_number(url: str, chain: int, position: int) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "select seq from shop.ledger where chain = %s and chain_seq = %s", (chain, position)
        ).fetchone()
    assert row is not None
    return int(row[0])


def test_long_ledger_is_valid_and_verified_fast(
    long_ledger: str, capsys: pytest.CaptureFixture[str]
) -> None:
    verification = verify(long_ledger)

    rate = verification.rows / verification.seconds
    with capsys.disabled():
        print(f" [{rate:,.0f} postings a second]", end="")
    assert (verification.errors, verification.rows, len(verification.heads)) == ([], MANY, 16)
    assert sum(head.position for head in verification.heads.values()) == MANY
    assert rate > ROWS_A_SECOND_MIN, "a million postings would take more than a minute"


@pytest.mark.parametrize(
    ("tampered", "position"),
    [(change, 40) for change in CHANGES.values()],
    indirect=["tampered"],
    ids=list(CHANGES),
)
def test_changed_posting_is_reported_at_its_position(tampered: str, position: int) -> None:
    (found,) = verify(tampered).errors

    assert (found.chain, found.chain_seq) == (3, position)
    assert found.seq == _sequence_number(tampered, 3, position)


@pytest.mark.parametrize("tampered", [f"delete from shop.ledger {HERE}"], indirect=True)
def test_deleted_posting_is_reported_as_missing(tampered: str) -> None:
    (found,) = verify(tampered).errors

    assert (found.chain, found.chain_seq, found.seq) == (3, 40, None)
    assert found.what == "missing: the next posting is 41"


@pytest.mark.parametrize(
    "tampered",
    [
        "delete from shop.ledger where chain = 3 and chain_seq > (select max(chain_seq) - 2 from "
        "shop.ledger where chain = 3)"
    ],
    indirect=True,
)
def test_deleted_end_of_a_chain_is_reported_by_its_head(tampered: str) -> None:
    (found,) = verify(tampered).errors

    with psycopg.connect(tampered) as connection:
        row = connection.execute("select chain_seq from shop.ledger_chains where chain = 3")
        (head,) = row.fetchone() or (0,)
    assert (found.chain, found.chain_seq, found.seq) == (3, head - 1, None)
    assert found.what == f"missing: the head is at {head}"


@pytest.mark.parametrize(
    "tampered",
    [
        f"update shop.ledger_chains set hash = {FLIP.format(column='hash')} where chain = 3",
        "delete from shop.ledger_chains where chain = 3",
    ],
    indirect=True,
    ids=["changed", "deleted"],
)
def test_changed_or_deleted_head_is_reported(tampered: str) -> None:
    (found,) = verify(tampered).errors

    assert (found.chain, found.seq) == (3, None)
    assert "head" in found.what


def test_postings_of_the_trigger_are_valid_until_one_is_changed(
    flow: FlowHarness, auditor: CommandLine, tmp_path: Path
) -> None:
    customer, product = flow.shop.person(), flow.shop.product(stock=9)
    orders = [customer.paid_order(product) for _ in range(3)]
    anchor = tmp_path / "heads.json"
    valid = auditor.run("ledger", "verify", "--anchor", anchor)
    assert (valid.exit_code, valid.stdout.splitlines()[-1]) == (0, "16 chains valid, 0 invalid")

    flow.shop.sql("alter table shop.ledger disable trigger append_only")
    (row,) = flow.shop.sql(
        "update shop.ledger set amount_minor = 9000 where order_id = %s "
        "returning chain, chain_seq, seq",
        orders[1]["id"],
    )
    unchanged = anchor.read_bytes()
    found = auditor.run("ledger", "verify", "--json", "--anchor", anchor)

    assert found.exit_code == 1
    assert json.loads(found.stdout)["breaks"] == [{**row, "what": "differs from its hash"}]
    assert anchor.read_bytes() == unchanged, "only a successful verification updates the anchor"


FORGE = """
with first as (select seq, chain, chain_seq, prev_hash from shop.ledger where order_id = %s)
update shop.ledger l set amount_minor = 1, hash = sha256(l.prev_hash || convert_to(concat_ws('|',
  l.chain, l.chain_seq, l.seq, l.kind, l.source_id, l.order_id, l.debit, l.credit, 1, l.currency,
  (extract(epoch from l.posted_at) * 1000000)::bigint), 'UTF8'))
from first where l.seq = first.seq returning l.chain, l.chain_seq, l.hash
"""


def test_chain_forged_with_its_head_differs_from_the_anchor(
    flow: FlowHarness, auditor: CommandLine, tmp_path: Path
) -> None:
    order = flow.shop.person().paid_order(flow.shop.product())
    anchor = tmp_path / "heads.json"
    assert auditor.run("ledger", "verify", "--anchor", anchor).exit_code == 0
    flow.shop.sql("alter table shop.ledger disable trigger append_only")
    (forged,) = flow.shop.sql(FORGE, order["id"])
    flow.shop.sql(
        "update shop.ledger_chains set hash = %s where chain = %s", forged["hash"], forged["chain"]
    )

    alone = auditor.run("ledger", "verify")
    anchored = auditor.run("ledger", "verify", "--anchor", anchor)

    assert alone.exit_code == 0, "the database alone does not show it"
    assert anchored.exit_code == 1
    assert "differs from the anchor" in anchored.stdout


def test_chain_shortened_with_its_head_differs_from_the_anchor(
    flow: FlowHarness, auditor: CommandLine, tmp_path: Path
) -> None:
    order = flow.shop.person().paid_order(flow.shop.product())
    anchor = tmp_path / "heads.json"
    assert auditor.run("ledger", "verify", "--anchor", anchor).exit_code == 0
    flow.shop.sql("alter table shop.ledger disable trigger append_only")
    (deleted,) = flow.shop.sql(
        "delete from shop.ledger where order_id = %s returning chain, prev_hash", order["id"]
    )
    flow.shop.sql(
        "update shop.ledger_chains set hash = %s, chain_seq = chain_seq - 1 where chain = %s",
        deleted["prev_hash"],
        deleted["chain"],
    )

    assert auditor.run("ledger", "verify").exit_code == 0
    anchored = auditor.run("ledger", "verify", "--anchor", anchor)

    assert anchored.exit_code == 1
    assert "missing: the anchor has 1 postings" in anchored.stdout


def test_invalid_anchor_file_exits_2(auditor: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "heads.json"
    file.write_text("[]")

    result = auditor.run("ledger", "verify", "--anchor", file)

    assert (result.exit_code, file.read_text()) == (2, "[]")
