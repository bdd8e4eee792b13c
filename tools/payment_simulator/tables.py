"""The SQLite tables of the payment simulator."""

from __future__ import annotations

TABLES = """
create table if not exists intents (
    intent_id integer primary key autoincrement,
    key text not null,
    provider_ref text not null unique,
    status text not null check (status in ('created', 'captured', 'declined', 'voided')),
    amount_minor integer check (amount_minor > 0),
    currency text,
    payment_method text not null,
    order_id text not null,
    payment_id text not null,
    reason text,
    tries integer not null default 0,
    created_at real not null,
    closed_at real,
    check (status = 'voided' or amount_minor is not null)
);
create index if not exists intents_by_key on intents (key, intent_id);

-- what the customers of open intents have to do
create table if not exists actions (
    intent_id integer primary key references intents (intent_id),
    type text not null check (type in ('redirect', 'widget', 'transfer')),
    status text not null check (status in ('awaited', 'authorized')),
    token text not null
);

create table if not exists refunds (
    refund_id integer primary key autoincrement,
    key text not null,
    charge_key text not null,
    charge_ref text not null,
    provider_ref text not null unique,
    status text not null check (status in ('succeeded', 'rejected')),
    amount_minor integer not null check (amount_minor > 0),
    currency text not null,
    reason text,
    created_at real not null
);
create index if not exists refunds_by_key on refunds (key, refund_id);
create index if not exists refunds_by_charge on refunds (charge_ref);

create table if not exists responses (
    scope text not null,
    key text not null,
    fingerprint text not null,
    status integer not null,
    body text not null,
    created_at real not null,
    primary key (scope, key)
);

create table if not exists disputes (
    dispute_id integer primary key autoincrement,
    provider_ref text not null unique,
    charge_key text not null,
    charge_ref text not null,
    status text not null check (status in ('open', 'won', 'lost')),
    amount_minor integer not null check (amount_minor > 0),
    currency text not null,
    fee_minor integer not null,
    opened_at real not null,
    closed_at real
);
create index if not exists disputes_by_charge on disputes (charge_ref);

-- one entry for each charge and refund, and for each change of a dispute
create table if not exists entries (
    entry_id integer primary key autoincrement,
    kind text not null check (kind in ('charge', 'refund', 'dispute')),
    key text not null,
    charge_key text not null,
    charge_ref text not null,
    amount_minor integer not null,
    currency text not null,
    provider_ref text not null,
    at integer not null
);

-- what staff and customers will do without a request of the shop, drawn when a charge is captured
create table if not exists unrequested (
    action_id integer primary key autoincrement,
    charge_key text not null,
    action text not null,
    amount_minor integer not null,
    due_at real not null
);

create table if not exists late_confirms (
    late_id integer primary key autoincrement,
    intent_id integer not null references intents (intent_id),
    ignores_tombstone integer not null,
    due_at real not null
);

create table if not exists webhooks (
    webhook_id integer primary key autoincrement,
    event_id text not null unique,
    body text not null,
    status text not null check (status in ('pending', 'delivered', 'lost', 'parked')),
    copies integer not null default 1,
    tries integer not null default 0,
    created_at real not null,
    next_at real not null
);
create index if not exists webhooks_pending on webhooks (next_at) where status = 'pending';

create table if not exists settings (
    name text primary key,
    value text not null
);
"""

# The entries of a file that was written before there were disputes: they are copied.
HAS_OLD_ENTRIES = """
select 1 from sqlite_master where name = 'entries' and sql not like '%dispute%'
"""
RENAME_OLD_ENTRIES = "alter table entries rename to old_entries;"
COPY_OLD_ENTRIES = """
insert into entries
select entry_id, kind, key, charge_key,
  coalesce((select charge_ref from refunds r where r.provider_ref = e.provider_ref), provider_ref),
  amount_minor, currency, provider_ref, at
from old_entries e;
drop table old_entries;
"""
