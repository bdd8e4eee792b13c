"""Runs the platform over stub functions: ``stub_platform.py <port> <data> <record file>``."""

from __future__ import annotations

import sys
from pathlib import Path

import psycopg

from tests.tools.local_platform.platform_under_test import FAST, SPECS, STUB
from tools.local_platform.activator import ScalingLimits
from tools.local_platform.platform import PlatformConfig, run

PORT, DATA, RECORD = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
PYTHON = [sys.executable, "-S"]
SCHEMA = """
create schema if not exists shop;
create or replace view shop.due_work as
    select 'x'::text as kind, 'x'::text as id, now() as due_at where false;
create table if not exists shop.starts (at timestamptz default now());
do $$ begin create role shop_relay login; exception when duplicate_object then null; end $$;
grant usage on schema shop to shop_relay;
grant select on shop.due_work to shop_relay;
"""


def migrate(admin_url: str) -> None:
    with psycopg.connect(admin_url) as connection:
        connection.execute(SCHEMA)


def seed(admin_url: str) -> list[tuple[str, str, str]]:
    with psycopg.connect(admin_url) as connection:
        connection.execute("insert into shop.starts default values")
        row = connection.execute("select count(*) from shop.starts").fetchone()
    assert row is not None
    return [("customer", "customer@shop.test", f"start-{row[0]}")]


def config() -> PlatformConfig:
    return PlatformConfig(
        specs=SPECS,
        function_command=lambda name: [*PYTHON, str(STUB), name, RECORD],
        simulator_command=[*PYTHON, str(Path(__file__).with_name("stub_simulator.py"))],
        mail_catcher_command=[*PYTHON, str(Path(__file__).with_name("stub_simulator.py"))],
        migrate=migrate,
        seed=seed,
        port=PORT,
        data=DATA,
        limits=ScalingLimits(idle_seconds=30),
        rule=FAST,
    )


if __name__ == "__main__":
    sys.exit(run(config()))
