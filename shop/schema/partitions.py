"""Monthly partitions: the views that list them, and the functions that maintain them.

``tools.migrate`` applies these statements after the migrations, like the views.  A partitioned
table ``t`` consists of

* ``t_other``: keys of no month, such as the ids of a provider's webhooks and the absent reservation
  of a product's first stock, and the rows that were older than the partitions when a migration
  created them
* ``t_months``, which consists of ``t_2027_01`` and so on, and ``t_without_month`` for keys of
  months that have no partition yet or no more: a row is never rejected for want of a partition.

Months are those of UTC.  The functions run with the rights of the tables' owner, since no
function's role may create, drop or analyze tables; they do nothing else, to no other table.
"""

from __future__ import annotations

from sqlalchemy import DateTime, Table

from shop.schema.tables import METADATA, Monthly, deletions_of, partitions_of

MONTHS_AHEAD = 2
# a transaction that waits for a table keeps others waiting behind it
LOCK_TIMEOUT = "500ms"
CALLER = "shop_relay"

# The least UUIDv7 of a time.
UUID_AT = """
create or replace function shop.uuid_at(at timestamptz) returns uuid
language sql immutable parallel safe as $$
  select (lpad(to_hex(floor(extract(epoch from at) * 1000)::bigint), 12, '0')
    || repeat('0', 20))::uuid
$$
"""

# Every month that has a partition.
MONTHS = """
create or replace view shop.months (table_name, name, starts_at, ends_at) as
  select left(p.relname, -length('_months')), c.relname::text,
    s.month at time zone 'UTC', (s.month + interval '1 month') at time zone 'UTC'
  from pg_class p join pg_inherits i on i.inhparent = p.oid join pg_class c on c.oid = i.inhrelid
  cross join lateral (select to_date(
    substring(c.relname from '_([0-9]{{4}}_[0-9]{{2}})$'), 'YYYY_MM')::timestamp as month) s
  where p.relnamespace = 'shop'::regnamespace and p.relname in ({parents})
    and s.month is not null
"""

# When a table's next month is to be created, and its first is to be dropped: null while a row of it
# is needed.  A function, since it reads the first month alone, without planning for the others.
# It has the owner's rights, because no other role reads partitions directly.
PARTITIONS_DUE = """
create or replace function shop.partitions_due(of_table text,
  out first_month text, out create_at timestamptz, out drop_at timestamptz)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp set timezone = 'UTC' as $$
declare
  first_at timestamptz;
  ends_at timestamptz;
  months int;
begin
  select min(m.name), min(m.starts_at), min(m.ends_at), count(*),
      max(m.ends_at) - interval '{ahead} months'
    into first_month, first_at, ends_at, months, create_at
    from shop.months m where m.table_name = of_table;
  if months > 1 and ends_at <= now() then
    execute format(case of_table {queries} else 'select null::timestamptz' end, first_month)
      into drop_at using shop.uuid_at(first_at), shop.uuid_at(ends_at), ends_at;
  end if;
end $$
"""
QUERY = """
    when '{table}' then $q$
      select case when not coalesce((select true from {kept_while} limit 1), false)
        then greatest({last}) end
    $q$"""
LAST = "$3 + '{age}', (select max({column}) from shop.%1$I where {column} is not null) + '{age}'"

# Rows of a month without a partition are in the default one; they move into the new partition
# before it is attached.  The triggers that protect them are off only in this transaction, which
# has locked the table.
CREATE = """
create or replace function shop.create_partitions(of_table text) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp set lock_timeout = '{lock_timeout}' set timezone = 'UTC' as $$
declare
  month timestamptz;
  first text;
  after text;
  partition text;
  rest constant text := of_table || '_without_month';
  key constant text := case of_table {keys} end;
  is_by_time constant boolean := of_table in ({by_time});
begin
  if of_table is null or of_table not in ({tables}) then
    raise exception 'shop.% is not partitioned', of_table using errcode = 'invalid_parameter_value';
  end if;
  execute format('lock table only shop.%I in share update exclusive mode', of_table || '_months');
  -- there is always a month: the last one is not dropped
  select max(ends_at) into month from shop.months where table_name = of_table;
  while month <= date_trunc('month', now()) + interval '{ahead} months' loop
    partition := of_table || to_char(month, '_YYYY_MM');
    after := month + interval '1 month';
    first := month;
    if not is_by_time then
      first := shop.uuid_at(first::timestamptz);
      after := shop.uuid_at(after::timestamptz);
    end if;
    execute format('create table shop.%I (like shop.%I including all excluding identity)',
      partition, of_table);
    execute format('lock table shop.%I in access exclusive mode', rest);
    execute format('alter table shop.%I disable trigger user', rest);
    execute format('with moved as (delete from shop.%1$I where %2$I >= %3$L and %2$I < %4$L '
      'returning *) insert into shop.%5$I select * from moved', rest, key, first, after, partition);
    execute format('alter table shop.%I enable trigger user', rest);
    if exists (select from pg_trigger where tgname = 'never_emptied'
        and tgrelid = format('shop.%I', of_table)::regclass) then
      execute format('create trigger never_emptied before truncate on shop.%I '
        'for each statement execute function shop.refuse_change()', partition);
    end if;
    execute format('alter table shop.%I attach partition shop.%I for values from (%L) to (%L)',
      of_table || '_months', partition, first, after);
    month := month + interval '1 month';
  end loop;
end $$
"""

# What is due is read again once the month is locked: an operator may have released an event.
DROP = """
create or replace function shop.drop_partitions(of_table text) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp set lock_timeout = '{lock_timeout}' set timezone = 'UTC' as $$
declare
  month text;
begin
  loop
    month := (select first_month from shop.partitions_due(of_table) where drop_at <= now());
    exit when month is null;
    execute format('lock table only shop.%I in access exclusive mode', of_table || '_months');
    execute format('lock table shop.%I in access exclusive mode', month);
    exit when not exists (select from shop.partitions_due(of_table)
      where first_month = month and drop_at <= now());
    execute format('drop table shop.%I', month);
  end loop;
end $$
"""

# Autovacuum analyzes partitions alone, so joins with the whole table would be planned without
# statistics.  Once a month is enough, and a sample of 3,000 rows is read within the timeout of the
# role's statements.  Before PostgreSQL 18 the partitions are analyzed as well.
ANALYZE = """
create or replace function shop.analyze_partitions(of_table text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
set lock_timeout = '2s' set timezone = 'UTC' set default_statistics_target = 10 as $$
begin
  if of_table is null or of_table not in ({tables}) then
    raise exception 'shop.% is not partitioned', of_table using errcode = 'invalid_parameter_value';
  end if;
  if exists (select from pg_stat_user_tables where schemaname = 'shop' and relname = of_table
      and last_analyze >= date_trunc('month', now())) then
    return;
  end if;
  execute format(case when current_setting('server_version_num')::int >= 180000
    then 'analyze only shop.%I' else 'analyze shop.%I' end, of_table);
end $$
"""

FUNCTIONS = ("create_partitions", "drop_partitions", "analyze_partitions")


def partitioned_tables() -> list[tuple[Table, Monthly]]:
    """Every table that is partitioned, and how."""
    found = ((table, partitions_of(table)) for table in METADATA.sorted_tables)
    return [(table, monthly) for table, monthly in found if monthly is not None]


def outside_months(table: Table) -> list[str]:
    """The partitions of a table that have rows of no month."""
    return [f"{table.name}_other", f"{table.name}_without_month"]


def partition_statements() -> list[str]:
    """The views and functions, without the right to call them."""
    tables = [table.name for table, _ in partitioned_tables()]
    parents = ", ".join(f"'{name}_months'" for name in tables)
    texts = {
        "tables": ", ".join(f"'{name}'" for name in tables),
        "ahead": MONTHS_AHEAD,
        "lock_timeout": LOCK_TIMEOUT,
        "keys": " ".join(
            f"when '{table.name}' then '{monthly.key}'" for table, monthly in partitioned_tables()
        ),
        "by_time": ", ".join(
            f"'{table.name}'"
            for table, monthly in partitioned_tables()
            if isinstance(table.columns[monthly.key].type, DateTime)
        ),
    }
    return [
        UUID_AT,
        MONTHS.format(parents=parents),
        PARTITIONS_DUE.format(
            ahead=MONTHS_AHEAD,
            queries="".join(
                _query(*each) for each in partitioned_tables() if deletions_of(each[0])
            ),
        ),
        CREATE.format(**texts),
        DROP.format(**texts),
        ANALYZE.format(**texts),
        *(f"revoke all on function shop.{name}(text) from public" for name in FUNCTIONS),
    ]


def partition_grants() -> list[str]:
    """The right to maintain partitions, of the one role that runs the due jobs."""
    return [f"grant execute on function shop.{name}(text) to {CALLER}" for name in FUNCTIONS]


def _query(table: Table, monthly: Monthly) -> str:
    last = (LAST.format(age=rule.age, column=rule.column) for rule in deletions_of(table))
    return QUERY.format(table=table.name, kept_while=monthly.kept_while, last=", ".join(last))
