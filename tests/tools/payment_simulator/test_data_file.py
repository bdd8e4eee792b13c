"""The data file of an earlier version is converted when it is opened."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.tools.payment_simulator.simulator_process import (
    charge_call,
    refund_call,
    running_simulator,
)
from tools.payment_simulator.records import ProviderRecords

# The tables of version 0.1.0: no disputes, no drawn actions, and entries without charge_ref.
AS_IN_0_1_0 = """
begin;
drop table disputes;
drop table unrequested;
alter table entries rename to new_entries;
create table entries (
    entry_id integer primary key autoincrement,
    kind text not null check (kind in ('charge', 'refund')),
    key text not null,
    charge_key text not null,
    amount_minor integer not null,
    currency text not null,
    provider_ref text not null,
    at integer not null
);
insert into entries
select entry_id, kind, key, charge_key, amount_minor, currency, provider_ref, at from new_entries;
drop table new_entries;
commit;
"""

# Opens the file with a conversion that ends after its first half.
INTERRUPTED = """
import pathlib, sys
from tools.payment_simulator import records
records.COPY_OLD_ENTRIES = "select no_such_column;"
records.ProviderRecords(pathlib.Path(sys.argv[1]), sends_webhooks=False)
"""


@pytest.fixture
def old_file(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A file of version 0.1.0 with a charge and its refund, and its records as they are shown."""
    data = tmp_path / "records.sqlite3"
    with running_simulator(data) as simulator:
        call, provider = charge_call(), simulator.provider()
        provider_ref = provider.charge(call).provider_ref or ""
        assert provider.refund(refund_call(call, provider_ref, 300)).kind == "succeeded"
        shown = simulator.records()
        simulator.stop()
    with closing(sqlite3.connect(data)) as file:
        file.executescript(AS_IN_0_1_0)
    return data, shown


def test_data_file_of_version_0_1_0_keeps_its_records(
    old_file: tuple[Path, dict[str, Any]],
) -> None:
    data, shown = old_file

    with running_simulator(data) as simulator:
        assert simulator.records() == shown
        simulator.stop()
        simulator.start()
        assert simulator.records() == shown


def test_charge_of_version_0_1_0_can_be_disputed(old_file: tuple[Path, dict[str, Any]]) -> None:
    data, shown = old_file
    charge, refund = shown["entries"]

    with running_simulator(data) as simulator:
        dispute = simulator.act("disputes", charge_key=charge["key"], amount_minor=700)
        *before, added = simulator.records()["entries"]

    assert before == [charge, refund]
    assert (added["kind"], added["provider_ref"]) == ("dispute", dispute["key"])
    assert added["charge_ref"] == charge["provider_ref"] == refund["charge_ref"]


def test_interrupted_conversion_is_begun_again(old_file: tuple[Path, dict[str, Any]]) -> None:
    data, shown = old_file
    interrupted = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(data)], capture_output=True, text=True, check=False
    )
    assert "no such column" in interrupted.stderr

    reopened = ProviderRecords(data, sends_webhooks=False)

    assert reopened.all_records()[1]["entries"] == shown["entries"]
    reopened.close()
