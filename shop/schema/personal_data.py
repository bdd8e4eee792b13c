"""What the shop holds of a person: the functions that export it, and that close an account.

They are made from what each table declares (``PersonalData``), so a table that declares personal
data is exported, erased and checked without another line of code.  ``tools.migrate`` applies them
after the migrations, like the views.  They run with the rights of the tables' owner, since no
function's role may read all of a customer's rows, or write tables of several modules.
``personal_data`` and ``close_account`` act for the account that the runtime has set for the
transaction, and for no other; administrators' functions close others by ``close_customer``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

from sqlalchemy import Column, LargeBinary, Table

from shop.schema.grants import ROW_SECURITY_TABLES
from shop.schema.tables import (
    METADATA,
    Anonymous,
    Erased,
    Overwritten,
    PersonalData,
    personal_data_of,
)

# A transaction that began before an account was closed may add a row until it ends, which takes
# seconds (ROLE_SETTINGS in grants.py): rows are erased at once, and again after this time.
ERASED_AGAIN_AFTER = "1 minute"
# A paid order with an address is to be delivered within this time.
UNDELIVERED = "30 days"
CALLER = "nullif(current_setting('shop.user_id', true), '')::bigint"
CALLED_BY = {
    "personal_data()": "shop_identity",
    "close_account(text)": "shop_identity",
    "close_customer(bigint)": "shop_accounts",
    "erase_account(bigint)": "shop_relay",
    "personal_data_left()": "shop_auditor",
}
POLICY = "owner_erases"

_SETTINGS = "set search_path = pg_catalog, pg_temp set timezone = 'UTC'"

# The caller's data as a JSON text: a list of rows for each table; null without an open account.
EXPORT = """
create or replace function shop.personal_data() returns text
language plpgsql stable security definer {settings} as $$
declare u shop.users;
begin
  select * into u from shop.users where user_id = {caller} and state = 'ACTIVE';
  if not found then
    return null;
  end if;
  return json_build_object({tables})::text;
end $$
"""
EXPORTED_TABLE = """
    '{name}', (select coalesce(json_agg(json_build_object({columns}) order by {key}), '[]')
      from shop.{table} t where {rows})"""

# Closes a customer's account and erases the data, if no order is open, and no goods are to be sent
# to an address or expected back: the one rule for owners and operators.  It waits for an order that
# is being placed, which takes the same lock before the lines of the cart and the account's row
# (shop/orders/orders.py): the order is counted here, or placed after the closing by a transaction
# that began before.
CLOSE_CUSTOMER = """
create or replace function shop.close_customer(customer bigint,
  out is_closed boolean, out open_orders int)
language plpgsql security definer {settings} as $$
declare account bigint;
begin
  perform pg_advisory_xact_lock(hashtextextended('shop.orders', customer));
  select user_id into account from shop.users where user_id = customer and state <> 'CLOSED'
    and role = 'customer' and not is_service for update;
  open_orders := (select count(*) from shop.orders o where o.user_id = account
    and (o.status in ('PENDING', 'CANCELLING') or exists (select from shop.payments p
      where p.order_id = o.order_id and (exists (select from shop.refunds r
          where r.payment_id = p.payment_id and r.status in ('INTENT', 'UNKNOWN'))
        or exists (select from shop.disputes d
          where d.payment_id = p.payment_id and d.status = 'OPEN')))
      or exists (select from shop.shipments s
        where s.order_id = o.order_id and s.status in ('PREPARING', 'SHIPPED'))
      or exists (select from shop.returns r
        where r.order_id = o.order_id and r.status in ('REQUESTED', 'APPROVED'))
      or o.status = 'PAID' and o.created_at > now() - interval '{undelivered}'
        and exists (select from shop.order_addresses a where a.order_id = o.order_id)
        and not exists (select from shop.shipments s
          where s.order_id = o.order_id and s.status = 'DELIVERED')));
  is_closed := account is not null and open_orders = 0;
  if is_closed then
    update shop.users set state = 'CLOSED', active = false, closed_at = now()
      where user_id = account;
    perform shop.erase_account(account);
  end if;
end $$
"""

# Closes the caller's account, if it is active and has the password that was checked.
CLOSE = """
create or replace function shop.close_account(known_hash text,
  out is_closed boolean, out open_orders int)
language plpgsql security definer {settings} as $$
declare account bigint;
begin
  perform pg_advisory_xact_lock(hashtextextended('shop.orders', {caller}));
  select user_id into account from shop.users where user_id = {caller} and state = 'ACTIVE'
    and password_hash = known_hash for update;
  select c.is_closed, c.open_orders into is_closed, open_orders
    from shop.close_customer(account) c;
end $$
"""

# Erases what is held of a closed account's person; may be repeated.  The row of the account is
# overwritten last, since others are found by its values.
ERASE = """
create or replace function shop.erase_account(account bigint) returns void
language plpgsql security definer {settings} as $$
declare u shop.users;
begin
  select * into u from shop.users where user_id = account and state = 'CLOSED' for update;
  if not found then
    return;
  end if;{statements}
  update shop.users set erased_at = now()
    where user_id = account and erased_at is null and closed_at <= now() - interval '{again}';
end $$
"""
DELETE = """
  delete from shop.{table} t where {rows};"""
OVERWRITE = """
  update shop.{table} t set {values} where ({rows}) and ({differs});"""

# Every closed account, and each table that has personal data of it.  Until they are erased again,
# rows of most tables may be added by a transaction that began before the closing.
LEFT = """
create or replace function shop.personal_data_left()
returns table (user_id bigint, table_name text)
language plpgsql stable security definer {settings} as $$
declare u shop.users;
begin
  for u in select * from shop.users a where a.state = 'CLOSED' loop
    {queries};
  end loop;
end $$
"""
LEFT_IN_TABLE = (
    "return query select u.user_id, '{table}' where {when} "
    "and exists (select from shop.{table} t where {condition})"
)
# Rows that no transaction adds after the closing: it locks the row of the account, as they do.
ERASED_AT_ONCE = ("users", "sessions")


def tables_of_persons() -> list[tuple[Table, PersonalData]]:
    """Every table with personal data, those that refer to others first, ``users`` last."""
    found = [
        (table, personal)
        for table in reversed(METADATA.sorted_tables)
        if isinstance(personal := personal_data_of(table), PersonalData)
    ]
    return sorted(found, key=lambda each: each[0].name == "users")


def personal_data_statements() -> list[str]:
    """The functions, without the right to call them."""
    tables = tables_of_persons()
    erasures = (_erasure(table, personal) for table, personal in tables)
    left = (_left(table, personal) for table, personal in tables)
    texts = {"settings": _SETTINGS, "caller": CALLER}
    exported = ",".join(_exported(table, personal) for table, personal in reversed(tables))
    return [
        EXPORT.format(tables=exported, **texts),
        ERASE.format(statements="".join(erasures), again=ERASED_AGAIN_AFTER, **texts),
        CLOSE_CUSTOMER.format(undelivered=UNDELIVERED, **texts),
        CLOSE.format(**texts),
        LEFT.format(queries=";\n    ".join(query for query in left if query), **texts),
        *(f"revoke all on function shop.{name} from public" for name in CALLED_BY),
    ]


def personal_data_grants() -> list[str]:
    """The right to call each function, of the one role that does."""
    return [f"grant execute on function shop.{name} to {role}" for name, role in CALLED_BY.items()]


def erasure_policies() -> list[str]:
    """The owner, who on a managed server is no superuser, deletes rows under row-level security."""
    return [
        f"create policy {POLICY} on shop.{table.name} for delete to current_user using (true)"
        for table, personal in tables_of_persons()
        if isinstance(personal.on_closing, Erased) and table.name in ROW_SECURITY_TABLES
    ]


def exported_name(name: str) -> str:
    """A table or column as the export names it: ``order_lines`` is ``orderLines``."""
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


def _exported(table: Table, personal: PersonalData) -> str:
    columns = ", ".join(
        f"'{exported_name(name)}', {_exported_value(table.columns[name])}" for name in personal.held
    )
    return EXPORTED_TABLE.format(
        name=exported_name(table.name),
        columns=columns,
        key=", ".join(f"t.{column.name}" for column in table.primary_key),
        table=table.name,
        rows=personal.rows,
    )


def _exported_value(column: Column[object]) -> str:
    if isinstance(column.type, LargeBinary):
        return f"convert_from(t.{column.name}, 'UTF8')"
    return f"t.{column.name}"


def _erasure(table: Table, personal: PersonalData) -> str:
    match personal.on_closing:
        case Erased():
            return DELETE.format(table=table.name, rows=personal.rows)
        case Overwritten(values):
            return OVERWRITE.format(
                table=table.name,
                values=", ".join(f"{column} = {value}" for column, value in values.items()),
                rows=personal.rows,
                differs=_differs(values),
            )
        case Anonymous():
            return ""
        case _:
            assert_never(personal.on_closing)


def _left(table: Table, personal: PersonalData) -> str:
    match personal.on_closing:
        case Erased():
            condition = personal.rows
        case Overwritten(values):
            condition = f"({personal.rows}) and ({_differs(values)})"
        case Anonymous():
            return ""
        case _:
            assert_never(personal.on_closing)
    when = "true" if table.name in ERASED_AT_ONCE else "u.erased_at is not null"
    return LEFT_IN_TABLE.format(table=table.name, when=when, condition=condition)


def _differs(values: Mapping[str, str]) -> str:
    return " or ".join(f"t.{column} is distinct from {value}" for column, value in values.items())
