"""The environment of every benchmark: PostgreSQL (fsync on), Redis, payment simulator and keys.

It is deleted afterwards.  Functions run as they do in a container: ``python -m shop.runtime`` with
the settings, database role and row-level security of the function.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, LiteralString
from uuid import UUID

import psycopg

from shop.adapters.tokens import TokenIssuer
from shop.primitives.spec import FunctionSpec
from shop.registry import all_specs, spec_of
from tools.bench.bytecode import compile_everything
from tools.local_platform import servers
from tools.local_platform.function_environment import AUDIENCE, ISSUER, Endpoints
from tools.local_platform.secrets import Secrets, local_secrets
from tools.migrate import migrate
from tools.seed import seed

CLOSED_PORT_URL = "http://127.0.0.1:9"  # the discard port refuses connections at once

CUSTOMERS: LiteralString = """
insert into shop.users (email, email_key, name, password_hash, role)
select 'bench' || n || '@shop.local', 'bench' || n || '@shop.local', 'Bench', '!', 'customer'
from generate_series(1, %(count)s::int) n
returning user_id
"""

# A session's id is computed from its account's, so that pgbench can compute it too.
SESSIONS: LiteralString = """
insert into shop.sessions (session_id, user_id, expires_at)
select lpad(user_id::text, 32, '0')::uuid, user_id, now() + interval '1 day' from shop.users
on conflict do nothing
"""

NEW_PRODUCTS: LiteralString = """
with created as (
  insert into shop.products (name, description, category, price_minor, currency)
  select '상품 ' || n, 'bench', '전자', 1000 + n, 'KRW' from generate_series(1, %(count)s::int) n
  returning product_id
), stocked as (
  insert into shop.stock (product_id, on_hand) select product_id, 100000000 from created
), moves as (
  insert into shop.stock_moves (product_id, kind, qty)
  select product_id, 'INITIAL', 100000000 from created
)
select product_id from created
"""

ACCOUNT_OF_ROLE: LiteralString = """
select user_id from shop.users where role = %(role)s order by user_id limit 1
"""

POSTMASTER: LiteralString = """
select split_part(pg_read_file('postmaster.pid'), chr(10), 1)::int
"""


@dataclass(frozen=True)
class BenchEnvironment:
    """The servers that function processes use, and the secrets of their callers."""

    admin_url: str
    redis_url: str
    provider_url: str
    secrets: Secrets

    def of_function(self, *names: str, **settings: str) -> dict[str, str]:
        """The environment variables of a function; ``settings`` override them, "" removes one."""
        endpoints = Endpoints(
            admin_url=self.admin_url,
            redis_url=self.redis_url,
            broker_url=CLOSED_PORT_URL,
            provider_url=self.provider_url,
            secrets=self.secrets,
            has_own_database=True,
        )
        values = endpoints.environment_for(spec_of(names[0])) | {
            "HOST": "127.0.0.1",
            "RATE_LIMIT_PER_MINUTE": "0",
            "OPEN_ORDERS_MAX": "0",
            "UNPAID_STOCK_PERCENT": "0",
        }
        values |= settings
        values.pop("PYTHONDONTWRITEBYTECODE", None)
        return {name: text for name, text in values.items() if text}

    def token(self, user_id: int, role: str) -> str:
        """An access token for the account's session."""
        issuer = TokenIssuer(
            self.secrets.jwt_private_key, ISSUER, AUDIENCE, lambda: datetime.now(UTC)
        )
        return issuer.issue(user_id, role, session_of(user_id))[0]

    def account(self, role: str) -> int:
        """Id of the seeded account with a role."""
        return int(self.sql(ACCOUNT_OF_ROLE, role=role)[0][0])

    def create_customers(self, count: int) -> list[int]:
        """Ids of new customers, each with an open session."""
        ids = [row[0] for row in self.sql(CUSTOMERS, count=count)]
        self.sql(SESSIONS)
        return ids

    def create_products(self, count: int) -> list[int]:
        """Ids of new products with 100,000,000 items in stock each."""
        return sorted(row[0] for row in self.sql(NEW_PRODUCTS, count=count))

    def sql(self, statement: LiteralString, **parameters: Any) -> list[Any]:
        """Runs a statement as the administrator."""
        with psycopg.connect(self.admin_url, autocommit=True) as connection:
            cursor = connection.execute(statement, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def postmaster(self) -> int:
        """The process id of PostgreSQL's postmaster."""
        return int(self.sql(POSTMASTER)[0][0])


def session_of(user_id: int) -> UUID:
    """The session id of an account."""
    return UUID(f"{user_id:032d}")


@contextmanager
def bench_environment() -> Generator[BenchEnvironment]:
    """Starts servers with schema and seed data; stops them when the block ends."""
    compile_everything()
    with (
        tempfile.TemporaryDirectory(prefix="shop-bench-") as folder,
        servers.postgres(Path(folder) / "postgres") as admin_url,
        servers.redis() as redis_url,
    ):
        migrate(admin_url)
        seed(admin_url)
        secrets = local_secrets(Path(folder) / "secrets", all_specs())
        with _payment_simulator(Path(folder) / "provider.sqlite", secrets) as provider_url:
            environment = BenchEnvironment(admin_url, redis_url, provider_url, secrets)
            environment.sql(SESSIONS)
            yield environment


@contextmanager
def _payment_simulator(data: Path, secrets: Secrets) -> Generator[str]:
    command = [sys.executable, "-m", "tools.payment_simulator", "--port", "0", "--data", str(data)]
    variables = {**os.environ, "PAYMENT_PROVIDER_API_KEY": secrets.provider_api_key}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=variables)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split()[-1]
    finally:
        process.terminate()
        process.communicate(timeout=10)


def specs_named(names: list[str]) -> tuple[FunctionSpec, ...]:
    """The functions with these names, or all functions when none is given."""
    return tuple(spec for spec in all_specs() if not names or spec.name in names)
