"""Tables that were renamed keep their former name for functions of the release before."""

from __future__ import annotations

import psycopg
import pytest

from tools.local_platform.function_environment import url_of_role

# the statement of version 0.1.0
RECORD = """
insert into shop.ghosts (provider_key, amount_minor, currency)
select %(provider_key)s, %(amount_minor)s, %(currency)s
where not exists (select from shop.payments p where p.provider_key = %(provider_key)s)
on conflict do nothing
returning provider_key
"""
CHARGE = {"provider_key": "shop:former-name", "amount_minor": 100, "currency": "KRW"}


def test_unmatched_charge_is_recorded_once_by_the_former_name(database_url: str) -> None:
    with psycopg.connect(url_of_role(database_url, "shop_ops")) as operator:
        first = operator.execute(RECORD, CHARGE).fetchall()
        again = operator.execute(RECORD, CHARGE).fetchall()

    with psycopg.connect(url_of_role(database_url, "shop_relay")) as relay:
        query = "select amount_minor from shop.{} where provider_key = 'shop:former-name'"
        read = [
            relay.execute(query.format(name).encode()).fetchall()
            for name in ("ghosts", "unmatched_charges")
        ]
    assert (first, again) == ([("shop:former-name",)], [])
    assert read == [[(100,)], [(100,)]]


@pytest.mark.parametrize(
    "change", ["update shop.ghosts set amount_minor = 1", "delete from shop.ghosts"]
)
def test_former_name_is_append_only_too(database_url: str, change: str) -> None:
    with psycopg.connect(url_of_role(database_url, "shop_ops")) as operator:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            operator.execute(change.encode())
