"""Every table of the shop, as SQLAlchemy Core metadata.

Tests prove that the migrations create exactly these tables.  No function imports this module, since
SQLAlchemy would slow every cold start.  The comment on each table names its one writer, and its
``info`` says what keeps it from growing for ever (``retention_of``) and what it holds of a person
(``personal_data_of``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    literal_column,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, CHAR, JSONB, UUID

from shop.primitives.spec import ROLES
from shop.primitives.statuses import (
    MOVES_OF_ORDERS,
    STOCK_DECREASES,
    AccountState,
    ActorKind,
    Bounce,
    CancelReason,
    CouponState,
    DeliveryState,
    DisabledBy,
    DisputeStatus,
    KeyState,
    LinkPurpose,
    MailFailure,
    MailKind,
    MailStatus,
    OrderStatus,
    PaymentStatus,
    PostingKind,
    PriceLineKind,
    PriceScheduleState,
    RefundMeans,
    RefundOrigin,
    RefundStatus,
    ReservationStatus,
    ReturnStatus,
    ShipmentStatus,
    StockMove,
    WebhookState,
)

METADATA = MetaData(schema="shop")
RETENTION = "retention"
PERSONAL = "personal"
PARTITIONED = "partitioned"


@dataclass(frozen=True)
class Monthly:
    """The table has one partition for each month of ``key``: a time, or a UUIDv7 and so a time.

    The due job ``partitions`` drops a month once all of its rows are past their retention, unless
    ``kept_while``, from which rows are selected, has one: ``%1$I`` is the partition, and its keys
    are from ``$1`` up to ``$2``, as uuid.  Months of a table whose rows are kept are not dropped.
    """

    key: str
    kept_while: str | None = None


@dataclass(frozen=True)
class DeletedAfter:
    """The due job ``retention`` of that name deletes rows whose ``column`` is older than ``age``.

    ``age`` is a PostgreSQL interval, which the setting ``RETENTION`` may replace by one that is not
    below ``least``.  The job is due an hour later, to delete many rows at once.  Rows of a monthly
    partition stay until the whole month is dropped.
    """

    age: str
    column: str
    job: str
    least: str = "1 day"


@dataclass(frozen=True)
class DeletedWith:
    """Rows are deleted with the row of another table that they belong to."""

    table: str


@dataclass(frozen=True)
class Kept:
    """Rows are never deleted: why, and how the table is partitioned when it has become large.

    For a table that is partitioned, the plan is what becomes of its months.
    """

    reason: str
    partition_plan: str


@dataclass(frozen=True)
class Bounded:
    """The table does not grow with orders, events or requests."""

    by: str


Retention = tuple[DeletedAfter, ...] | DeletedWith | Kept | Bounded


@dataclass(frozen=True)
class Erased:
    """The rows are deleted when the account is closed."""


@dataclass(frozen=True)
class Overwritten:
    """The rows stay, and these columns get these values, SQL expressions over the row ``t``."""

    values: Mapping[str, str]


@dataclass(frozen=True)
class Anonymous:
    """The rows stay as they are, for this reason: they name a closed account by its number only."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class PersonalData:
    """What the rows ``t`` of a table hold of the person of the account ``u``, a row of ``users``.

    ``rows`` is the SQL condition for these rows, ``why`` what they are held for.  ``held`` has the
    columns of an export and what each is; ``left_out`` has all others, by the reason for that.
    """

    rows: str
    why: str
    held: Mapping[str, str]
    left_out: Mapping[str, tuple[str, ...]]
    on_closing: Erased | Overwritten | Anonymous


@dataclass(frozen=True)
class Impersonal:
    """No row belongs to a person: what the table holds instead."""

    holds: str


def personal_data_of(table: Table) -> PersonalData | Impersonal:
    """What a table holds of a person; KeyError for a table that does not declare it."""
    personal: PersonalData | Impersonal = table.info[PERSONAL]
    return personal


def retention_of(table: Table) -> Retention:
    """What keeps a table from growing for ever; KeyError for a table that does not declare it."""
    retention: Retention = table.info[RETENTION]
    return retention


def deletions_of(table: Table) -> tuple[DeletedAfter, ...]:
    """The rules by which the due job ``retention`` deletes rows of a table."""
    retention = retention_of(table)
    return retention if isinstance(retention, tuple) else ()


def partitions_of(table: Table) -> Monthly | None:
    """How a table is partitioned; None if it is not."""
    partitions: Monthly | None = table.info.get(PARTITIONED)
    return partitions


# Korean law (the Act on Consumer Protection in Electronic Commerce, enforcement decree article 6)
# demands records of contracts and payments for five years; the checks compare all of them.
_RECORDS = "record of a contract or a payment, to be kept for five years and compared by the checks"
_PRICES = "price history of every product; of an account it has the number only"
_BY_ORDER = "range of order_id, a UUIDv7 and so a time: one partition a quarter, old ones detached"
_BY_OWN_ID = "range of the primary key, a UUIDv7 and so a time: one partition a quarter"
_MONTHS_KEPT = "all kept"

# What rows about an order and about an account have in common (PersonalData.rows).
_OF_ORDERS = "t.order_id in (select o.order_id from shop.orders o where o.user_id = u.user_id)"
_OF_PAYMENTS = """t.payment_id in (select p.payment_id from shop.orders o
  join shop.payments p using (order_id) where o.user_id = u.user_id)"""
_OF_SHIPMENTS = """t.shipment_id in (select s.shipment_id from shop.orders o
  join shop.shipments s using (order_id) where o.user_id = u.user_id)"""
_OF_RETURNS = """t.return_id in (select r.return_id from shop.orders o
  join shop.returns r using (order_id) where o.user_id = u.user_id)"""
_ENTRIES = """({0}.object_kind = 'user' and {0}.object_id = u.user_id::text
  or {0}.object_kind = 'order' and {0}.object_id = any(array(
    select o.order_id::text from shop.orders o where o.user_id = u.user_id)))"""
# Operators go on writing about the orders of a closed account.
_BEFORE_CLOSING = "(u.closed_at is null or {0} <= u.closed_at)"
_WRITES = f"""shop.audit_log a
  where {_BEFORE_CLOSING.format("a.at")} and {_ENTRIES.format("a")}"""
# The response to a registration, or to an operator who wrote about the account or its orders, was
# stored in the transaction of the write, and so at the same time.  An index answers for the array.
_RESPONSES = f"""t.user_id = u.user_id
  or t.created_at = u.created_at and t.user_id = 0 and t.scope = 'POST /users'
  or t.created_at = any(array(select a.at from {_WRITES}))
    and (t.created_at, t.user_id) in (select a.at, a.actor_id from {_WRITES})"""
_LAW = "the records of contracts and payments that commercial law demands"
_SAME = "the same in every row"
_TECHNICAL = "needed to process the row, and without a meaning for the person"
_AMOUNTS = {
    "amount_minor": "amount, in the currency's smallest unit",
    "currency": "currency",
    "status": "status",
    "created_at": "when it was created",
    "updated_at": "when it last changed",
}
_BY_SEQ = "range of seq, which grows with time: one partition for every 100,000,000 rows"

NOW = text("now()")


def _when(name: str, *, nullable: bool = False, default: bool = True) -> Column[object]:
    return Column(
        name,
        DateTime(timezone=True),
        nullable=nullable,
        server_default=NOW if default and not nullable else None,
    )


def _one_of(column: str, values: Iterable[str]) -> str:
    quoted = ", ".join(f"'{value}'" for value in values)
    return f"{column} in ({quoted})"


# ---------------------------------------------------------------- accounts

users = Table(
    "users",
    METADATA,
    Column("user_id", BigInteger, Identity(always=True), primary_key=True),
    Column("email", Text, nullable=False),
    Column("email_key", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("password_hash", Text, nullable=False),
    Column("role", Text, nullable=False, server_default=text("'customer'")),
    Column("active", Boolean, nullable=False, server_default=text("true")),
    Column("state", Text, nullable=False, server_default=text("'ACTIVE'")),
    Column("language", Text, nullable=False, server_default=text("'ko'")),
    _when("email_verified_at", nullable=True),
    _when("password_changed_at", nullable=True),
    Column("is_service", Boolean, nullable=False, server_default=text("false")),
    # the second factor whose codes log-in needs
    Column("factor_id", UUID),
    _when("created_at"),
    _when("closed_at", nullable=True),
    # after which no transaction that began before the closing can add a row
    _when("erased_at", nullable=True),
    UniqueConstraint("email_key", name="one_account_per_email"),
    CheckConstraint(_one_of("role", ROLES), name="known_role"),
    CheckConstraint(_one_of("state", AccountState), name="known_account_state"),
    # functions of the version before read active, and write neither
    CheckConstraint("active = (state = 'ACTIVE')", name="active_is_a_state"),
    CheckConstraint("language in ('ko', 'en')", name="known_language"),
    Index("users_by_role", "role", "user_id"),
    Index(
        "users_to_erase",
        "closed_at",
        postgresql_where=text("closed_at is not null and erased_at is null"),
    ),
    CheckConstraint("email_key = lower(email_key)", name="email_key_is_folded"),
    comment="writer: accounts",
    info={
        PERSONAL: PersonalData(
            rows="t.user_id = u.user_id",
            why="to log in, to be written to and to be addressed by name",
            held={
                "user_id": "number of the account",
                "email": "e-mail address",
                "name": "name",
                "role": "role",
                "state": "state of the account",
                "language": "preferred language",
                "email_verified_at": "when the address was verified",
                "password_changed_at": "when the password was last replaced",
                "created_at": "when the account was created",
            },
            left_out={
                "the address again, in lower case": ("email_key",),
                "a secret": ("password_hash",),
                "what a secret is computed from": ("factor_id",),
                "the state again": ("active",),
                "a person's account is none": ("is_service",),
                "an open account has none": ("closed_at", "erased_at"),
            },
            on_closing=Overwritten(
                {
                    "email": "''",
                    # no address, so it can never be that of another account
                    "email_key": "'closed ' || t.user_id",
                    "name": "''",
                    "password_hash": "''",
                    "factor_id": "null::uuid",
                    "language": "'ko'",
                    "email_verified_at": "null::timestamptz",
                }
            ),
        ),
        RETENTION: Kept(
            "accounts; closing one erases what it holds of the person",
            "hash of user_id, from 100,000,000 accounts on",
        ),
    },
)

sessions = Table(
    "sessions",
    METADATA,
    Column("session_id", UUID, primary_key=True),
    Column("user_id", BigInteger, ForeignKey("shop.users.user_id"), nullable=False),
    _when("created_at"),
    _when("expires_at", default=False),
    _when("revoked_at", nullable=True),
    Index("sessions_of_user", "user_id"),
    Index("sessions_by_expiry", "expires_at"),
    comment="writer: accounts",
    info={
        PERSONAL: PersonalData(
            rows="t.user_id = u.user_id",
            why="to stay logged in, and to see and end one's sessions",
            held={
                "session_id": "number of the session",
                "created_at": "when it began",
                "expires_at": "when it expires",
                "revoked_at": "when it was ended",
            },
            left_out={_SAME: ("user_id",)},
            on_closing=Erased(),
        ),
        RETENTION: (DeletedAfter("30 days", "expires_at", "sessions"),),
    },
)

refresh_tokens = Table(
    "refresh_tokens",
    METADATA,
    Column("token_hash", LargeBinary, primary_key=True),
    Column(
        "session_id",
        UUID,
        ForeignKey("shop.sessions.session_id", ondelete="CASCADE"),
        nullable=False,
    ),
    _when("created_at"),
    _when("used_at", nullable=True),
    Index("refresh_tokens_by_session", "session_id"),
    CheckConstraint("octet_length(token_hash) = 32", name="token_hash_is_sha256"),
    comment="writer: accounts",
    info={
        PERSONAL: PersonalData(
            rows="t.session_id in (select s.session_id from shop.sessions s "
            "where s.user_id = u.user_id)",
            why="to renew a session",
            held={
                "session_id": "number of the session",
                "created_at": "when the session was renewed",
                "used_at": "when it was renewed again",
            },
            left_out={"a secret": ("token_hash",)},
            on_closing=Erased(),
        ),
        RETENTION: DeletedWith("sessions"),
    },
)

second_factors = Table(
    "second_factors",
    METADATA,
    Column("user_id", BigInteger, ForeignKey("shop.users.user_id"), primary_key=True),
    Column("factor_id", UUID, nullable=False),
    _when("created_at"),
    # null until a first code has shown that the application computes the same
    _when("confirmed_at", nullable=True),
    Column("last_step", BigInteger, nullable=False, server_default=text("0")),
    Column("accepted", BigInteger, nullable=False, server_default=text("0")),
    Column("failures", SmallInteger, nullable=False, server_default=text("0")),
    _when("blocked_until", nullable=True),
    Column("recovery_hashes", ARRAY(LargeBinary), nullable=False, server_default=text("'{}'")),
    Column("key_id", Text),
    Column("salt", UUID),
    Column("pad", LargeBinary),
    UniqueConstraint("factor_id", name="second_factors_factor_id_key"),
    CheckConstraint("failures >= 0", name="factor_failures_not_negative"),
    CheckConstraint(
        "(confirmed_at is null) = (accepted = 0) and (confirmed_at is null) = (last_step = 0)",
        name="factor_is_confirmed_by_a_code",
    ),
    CheckConstraint(
        "(salt is null) = (pad is null) and (pad is null or key_id is not null)",
        name="factor_has_salt_and_pad_or_neither",
    ),
    comment="writer: second_factors",
    info={
        PERSONAL: PersonalData(
            rows="t.user_id = u.user_id",
            why="to ask an operator for a code at each log-in",
            held={
                "created_at": "when the second factor was set up",
                "confirmed_at": "since when log-in needs it",
                "accepted": "how many codes were accepted",
                "failures": "how many codes in a row were wrong",
                "blocked_until": "until when no code is accepted",
            },
            left_out={
                "what the secret is computed from": ("factor_id", "key_id", "salt", "pad"),
                "hashes of secrets": ("recovery_hashes",),
                "the time of the last code": ("last_step",),
                _SAME: ("user_id",),
            },
            on_closing=Erased(),
        ),
        RETENTION: Bounded("one of each operator"),
    },
)

api_keys = Table(
    "api_keys",
    METADATA,
    Column("key_hash", LargeBinary, primary_key=True),
    Column(
        "session_id",
        UUID,
        ForeignKey("shop.sessions.session_id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("prefix", Text, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    _when("last_used_at", nullable=True),
    Index("api_keys_by_session", "session_id"),
    CheckConstraint("octet_length(key_hash) = 32", name="key_hash_is_sha256"),
    CheckConstraint("cardinality(scopes) between 1 and 20", name="key_has_scopes"),
    comment="writer: api_keys",
    info={
        PERSONAL: Impersonal("the keys of service accounts, which belong to no person"),
        RETENTION: DeletedWith("sessions"),
    },
)

login_failures = Table(
    "login_failures",
    METADATA,
    Column("failure_id", BigInteger, Identity(always=True), primary_key=True),
    Column("account", LargeBinary, nullable=False),
    Column("source", LargeBinary, nullable=False),
    Column("is_known_device", Boolean, nullable=False),
    _when("failed_at"),
    Index("login_failures_by_account", "account", "failed_at"),
    Index("login_failures_by_source", "source", "failed_at"),
    Index("login_failures_by_time", "failed_at"),
    CheckConstraint("octet_length(account) = 32", name="account_is_sha256"),
    CheckConstraint("octet_length(source) = 32", name="source_is_sha256"),
    comment="writer: login_failures",
    info={
        PERSONAL: PersonalData(
            rows="t.account = sha256(convert_to('account:' || u.email_key, 'UTF8'))",
            why="to limit attempts to guess a password",
            held={
                "failed_at": "when a log-in failed",
                "is_known_device": "whether from a device that had logged in before",
            },
            left_out={
                "a hash of the address": ("account",),
                "a hash of the device or network": ("source",),
                _TECHNICAL: ("failure_id",),
            },
            on_closing=Erased(),
        ),
        RETENTION: (
            # the time in which failures count
            DeletedAfter("15 minutes", "failed_at", "login_failures", least="15 minutes"),
        ),
    },
)

one_time_links = Table(
    "one_time_links",
    METADATA,
    Column("link_id", UUID, primary_key=True),
    Column("purpose", Text, nullable=False),
    # No foreign key, whose check would take time only where the address has an account.
    Column("user_id", BigInteger),
    Column("recipient", LargeBinary),
    Column("network", LargeBinary),
    _when("created_at"),
    _when("expires_at", default=False),
    _when("ended_at", nullable=True),
    # of this link itself: it also ends when another one of its account is used
    Column("uses", SmallInteger, nullable=False, server_default=text("0")),
    # the addresses after and before a change, since an event holds none
    Column("email", Text),
    Column("email_before", Text),
    Index("one_time_links_by_account", "user_id"),
    Index("one_time_links_by_recipient", "recipient", "created_at"),
    Index("one_time_links_by_network", "network", "created_at"),
    Index("one_time_links_by_expiry", "expires_at"),
    CheckConstraint(_one_of("purpose", LinkPurpose), name="known_link_purpose"),
    CheckConstraint("uses in (0, 1)", name="link_is_used_once"),
    CheckConstraint("octet_length(recipient) = 32", name="recipient_is_sha256"),
    CheckConstraint("octet_length(network) = 32", name="network_is_sha256"),
    CheckConstraint("(recipient is null) = (network is null)", name="requested_or_made"),
    CheckConstraint(
        "(email is null) = (email_before is null) and (purpose = 'CHANGE_EMAIL' or email is null)",
        name="addresses_of_a_change",
    ),
    comment="writer: one_time_links",
    info={
        PERSONAL: PersonalData(
            rows="t.user_id = u.user_id",
            why="to set a password, or verify or change an address, by a link that was mailed",
            held={
                "purpose": "what the link is for",
                "created_at": "when it was requested",
                "expires_at": "when it expires",
                "ended_at": "when it was used or replaced",
                "uses": "how often it was used",
                "email": "the address that a change is to",
                "email_before": "the address before a change",
            },
            left_out={
                "a part of the link's token": ("link_id",),
                "keyed hashes of the address and the network": ("recipient", "network"),
                _SAME: ("user_id",),
            },
            on_closing=Erased(),
        ),
        RETENTION: (DeletedAfter("1 day", "expires_at", "one_time_links"),),
    },
)

# ---------------------------------------------------------------- catalogue and stock

categories = Table(
    "categories",
    METADATA,
    Column("name", Text, primary_key=True),
    _when("created_at"),
    Column("vat_basis_points", Integer, nullable=False, server_default=text("1000")),
    Column("vat_included", Boolean, nullable=False, server_default=text("true")),
    CheckConstraint("char_length(name) between 1 and 50", name="category_name_length"),
    CheckConstraint("vat_basis_points between 0 and 10000", name="vat_is_a_rate"),
    comment="writer: catalog",
    info={PERSONAL: Impersonal("the range of goods"), RETENTION: Bounded("the range of goods")},
)

product_groups = Table(
    "product_groups",
    METADATA,
    Column("group_id", BigInteger, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False),
    Column("options", ARRAY(Text), nullable=False),
    Column("version", Integer, nullable=False, server_default=text("1")),
    _when("created_at"),
    _when("updated_at"),
    CheckConstraint("char_length(name) between 1 and 200", name="group_name_length"),
    CheckConstraint("cardinality(options) between 1 and 5", name="group_options"),
    comment="writer: catalog",
    info={PERSONAL: Impersonal("the range of goods"), RETENTION: Bounded("the range of goods")},
)

products = Table(
    "products",
    METADATA,
    Column("product_id", BigInteger, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False),
    Column("description", Text, nullable=False, server_default=text("''")),
    Column("category", Text, ForeignKey("shop.categories.name"), nullable=False),
    Column("price_minor", BigInteger, nullable=False),
    Column("currency", CHAR(3), nullable=False),
    Column("active", Boolean, nullable=False, server_default=text("true")),
    Column("flash_sale", Boolean, nullable=False, server_default=text("false")),
    Column("version", Integer, nullable=False, server_default=text("1")),
    _when("created_at"),
    _when("updated_at"),
    # the schedule that has set the price; without a foreign key, since both tables would need one
    Column("price_schedule_id", UUID),
    Column("images", JSONB, nullable=False, server_default=text("'[]'::jsonb")),
    # texts by language, other than the shop's, in which the columns are
    Column("translations", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("group_id", BigInteger, ForeignKey("shop.product_groups.group_id")),
    # in the order of the group's options
    Column("option_values", ARRAY(Text)),
    CheckConstraint("price_minor > 0", name="price_is_positive"),
    CheckConstraint("(group_id is null) = (option_values is null)", name="values_iff_in_a_group"),
    CheckConstraint("char_length(name) between 1 and 200", name="product_name_length"),
    CheckConstraint("jsonb_typeof(translations) = 'object'", name="translations_by_language"),
    # without a list of pending entries, which every search would read
    Index(
        "products_by_name_ngram",
        literal_column("(shop.ngrams(name, 1) || shop.ngrams(name, 2))", ARRAY(Text())),
        postgresql_using="gin",
        postgresql_with={"fastupdate": "off"},
    ),
    Index(
        "products_by_translated_ngram",
        literal_column(
            "(shop.ngrams(shop.translated_names(translations), 1) "
            "|| shop.ngrams(shop.translated_names(translations), 2))",
            ARRAY(Text()),
        ),
        postgresql_using="gin",
        postgresql_with={"fastupdate": "off"},
        postgresql_where=text("translations <> '{}'::jsonb"),
    ),
    # for the searches of 0.1.0, which read every product without it: drop it once no release that a
    # roll-back returns to has them
    Index(
        "products_by_name_trigram",
        literal_column("lower(name)", Text()).label("lower_name"),
        postgresql_using="gin",
        postgresql_ops={"lower_name": "gin_trgm_ops"},
    ),
    Index(
        "one_product_per_options",
        "group_id",
        "option_values",
        unique=True,
        postgresql_where=text("group_id is not null"),
    ),
    Index("products_by_name", "name", "product_id", postgresql_where=text("active")),
    Index("products_withdrawn", "product_id", postgresql_where=text("not active")),
    Index("products_by_category", "category", "product_id", postgresql_where=text("active")),
    Index(
        "products_by_price_with_name",
        "price_minor",
        "product_id",
        postgresql_include=["name"],
        postgresql_where=text("active"),
    ),
    comment="writer: catalog",
    info={
        PERSONAL: Impersonal("the range of goods"),
        RETENTION: Bounded(
            "the range of goods; products are deactivated, since orders refer to them"
        ),
    },
)

price_schedules = Table(
    "price_schedules",
    METADATA,
    Column("schedule_id", UUID, primary_key=True),
    Column("product_id", BigInteger, ForeignKey("shop.products.product_id"), nullable=False),
    Column("price_minor", BigInteger, nullable=False),
    Column("regular_minor", BigInteger),
    _when("starts_at", default=False),
    _when("ends_at", default=False),
    Column("state", Text, nullable=False, server_default=text("'PLANNED'")),
    Column("created_by", BigInteger, nullable=False),
    _when("created_at"),
    _when("updated_at"),
    CheckConstraint("price_minor > 0", name="scheduled_price_is_positive"),
    CheckConstraint("starts_at < ends_at", name="starts_before_it_ends"),
    CheckConstraint(_one_of("state", PriceScheduleState), name="known_price_schedule_state"),
    CheckConstraint(
        "state not in ('ACTIVE', 'ENDED') or regular_minor is not null",
        name="knows_the_price_before",
    ),
    Index(
        "one_active_price_schedule",
        "product_id",
        unique=True,
        postgresql_where=text("state = 'ACTIVE'"),
    ),
    Index(
        "price_schedules_open",
        "product_id",
        "starts_at",
        postgresql_where=text("state in ('PLANNED', 'ACTIVE')"),
    ),
    Index("price_schedules_to_start", "starts_at", postgresql_where=text("state = 'PLANNED'")),
    Index("price_schedules_to_end", "ends_at", postgresql_where=text("state = 'ACTIVE'")),
    Index("price_schedules_by_account", "created_by"),
    comment="writer: price_schedules",
    info={
        PERSONAL: PersonalData(
            rows="t.created_by = u.user_id",
            why="to show who planned a price",
            held={
                "product_id": "the product",
                "price_minor": "the price",
                "starts_at": "from when",
                "ends_at": "until when",
                "state": "what became of it",
                "created_at": "when it was planned",
            },
            left_out={
                _SAME: ("created_by",),
                _TECHNICAL: ("schedule_id", "regular_minor", "updated_at"),
            },
            on_closing=Anonymous(_PRICES),
        ),
        RETENTION: Kept(_PRICES, _BY_OWN_ID),
    },
)

price_changes = Table(
    "price_changes",
    METADATA,
    Column("seq", BigInteger, Identity(always=True), primary_key=True),
    Column("product_id", BigInteger, ForeignKey("shop.products.product_id"), nullable=False),
    Column("from_minor", BigInteger),
    Column("to_minor", BigInteger, nullable=False),
    _when("changed_at"),
    Column("changed_by", BigInteger),
    Column("schedule_id", UUID, ForeignKey("shop.price_schedules.schedule_id")),
    Index("price_changes_of_product", "product_id", "seq"),
    Index("price_changes_by_account", "changed_by"),
    comment="writer: the trigger on products; append only",
    info={
        PERSONAL: PersonalData(
            rows="t.changed_by = u.user_id",
            why="to show who changed a price",
            held={
                "product_id": "the product",
                "from_minor": "the price before",
                "to_minor": "the price after",
                "changed_at": "when it was changed",
            },
            left_out={
                _SAME: ("changed_by",),
                _TECHNICAL: ("seq", "schedule_id"),
            },
            on_closing=Anonymous(_PRICES),
        ),
        RETENTION: Kept(_PRICES, _BY_SEQ),
    },
)

stock = Table(
    "stock",
    METADATA,
    Column("product_id", BigInteger, ForeignKey("shop.products.product_id"), primary_key=True),
    Column("on_hand", Integer, nullable=False),
    Column("reserved", Integer, nullable=False, server_default=text("0")),
    CheckConstraint("on_hand >= 0", name="on_hand_not_negative"),
    CheckConstraint("reserved >= 0", name="reserved_not_negative"),
    CheckConstraint("reserved <= on_hand", name="reserved_le_on_hand"),
    comment="writer: inventory",
    info={
        PERSONAL: Impersonal("how much there is of each product"),
        RETENTION: Bounded("one row a product"),
    },
)

cart_items = Table(
    "cart_items",
    METADATA,
    Column("user_id", BigInteger, ForeignKey("shop.users.user_id"), nullable=False),
    Column("product_id", BigInteger, ForeignKey("shop.products.product_id"), nullable=False),
    Column("qty", Integer, nullable=False),
    _when("added_at"),
    PrimaryKeyConstraint("user_id", "product_id"),
    CheckConstraint("qty between 1 and 1000", name="cart_qty_range"),
    comment="writer: carts",
    info={
        PERSONAL: PersonalData(
            rows="t.user_id = u.user_id",
            why="to keep what the customer intends to buy",
            held={
                "product_id": "number of the product",
                "qty": "quantity",
                "added_at": "when it was added",
            },
            left_out={_SAME: ("user_id",)},
            on_closing=Erased(),
        ),
        RETENTION: Bounded("50 lines an account"),
    },
)

# ---------------------------------------------------------------- orders

orders = Table(
    "orders",
    METADATA,
    Column("order_id", UUID, primary_key=True),
    Column("user_id", BigInteger, ForeignKey("shop.users.user_id"), nullable=False),
    Column("status", Text, nullable=False),
    Column("reason", Text),
    Column("total_minor", BigInteger, nullable=False),
    Column("currency", CHAR(3), nullable=False),
    Column("payment_method", Text, nullable=False),
    Column("version", Integer, nullable=False, server_default=text("1")),
    Column("idem_scope", Text),
    Column("idem_key", Text),
    _when("created_at"),
    _when("updated_at"),
    _when("expires_at", default=False),
    _when("hard_expires_at", default=False),
    _when("charge_at", nullable=True),
    # null: not placed from the cart; false: its lines were returned to the cart
    Column("cart_taken", Boolean),
    # by which version its shipping fee was computed, and for which of that version's regions
    Column("shipping_version", BigInteger),
    Column("shipping_region", Integer),
    CheckConstraint(_one_of("status", OrderStatus), name="known_order_status"),
    CheckConstraint(_one_of("reason", CancelReason), name="known_reason"),
    CheckConstraint("total_minor > 0", name="total_is_positive"),
    CheckConstraint(
        "(status in ('CANCELLING', 'CANCELLED')) = (reason is not null)",
        name="reason_iff_cancelled",
    ),
    CheckConstraint("(idem_scope is null) = (idem_key is null)", name="idempotency_key_is_whole"),
    UniqueConstraint("user_id", "idem_scope", "idem_key", name="one_order_per_key"),
    UniqueConstraint("order_id", "user_id", name="one_buyer_per_order"),
    Index("orders_by_user", "user_id", "order_id"),
    Index("orders_open_by_user", "user_id", postgresql_where=text("status = 'PENDING'")),
    Index(
        "orders_to_charge",
        "charge_at",
        postgresql_where=text("status = 'PENDING' and charge_at is not null"),
    ),
    Index("orders_to_expire", "expires_at", postgresql_where=text("status = 'PENDING'")),
    # for operators; few orders are not PAID, and those that are need no index by status
    Index("orders_by_status", "status", "order_id", postgresql_where=text("status <> 'PAID'")),
    Index("orders_by_total", "total_minor", "order_id"),
    Index("orders_to_finish", "updated_at", postgresql_where=text("status = 'CANCELLING'")),
    comment="writer: ordering.orders",
    info={
        PERSONAL: PersonalData(
            rows="t.user_id = u.user_id",
            why=f"to fulfil the order; {_LAW}",
            held={
                "order_id": "number of the order",
                "status": "status",
                "reason": "why it was cancelled",
                "total_minor": "total, in the currency's smallest unit",
                "currency": "currency",
                "payment_method": "means of payment",
                "created_at": "when it was placed",
                "updated_at": "when it last changed",
                "expires_at": "until when it could be paid",
            },
            left_out={
                _SAME: ("user_id",),
                "a random value of the client's": ("idem_scope", "idem_key"),
                "how the shipping fee was computed": ("shipping_version", "shipping_region"),
                _TECHNICAL: ("version", "hard_expires_at", "charge_at", "cart_taken"),
            },
            on_closing=Anonymous(_RECORDS),
        ),
        RETENTION: Kept(_RECORDS, _BY_OWN_ID),
    },
)

order_lines = Table(
    "order_lines",
    METADATA,
    Column("order_id", UUID, nullable=False),
    Column("user_id", BigInteger, nullable=False),
    Column("product_id", BigInteger, ForeignKey("shop.products.product_id"), nullable=False),
    Column("qty", Integer, nullable=False),
    Column("unit_price_minor", BigInteger, nullable=False),
    PrimaryKeyConstraint("order_id", "product_id"),
    Index("order_lines_by_product", "product_id", "order_id"),
    ForeignKeyConstraint(["order_id", "user_id"], ["shop.orders.order_id", "shop.orders.user_id"]),
    CheckConstraint("qty between 1 and 1000", name="line_qty_range"),
    CheckConstraint("unit_price_minor > 0", name="unit_price_is_positive"),
    comment="writer: ordering.orders",
    info={
        PERSONAL: PersonalData(
            rows=_OF_ORDERS,
            why=f"to fulfil the order; {_LAW}",
            held={
                "order_id": "number of the order",
                "product_id": "number of the product",
                "qty": "quantity",
                "unit_price_minor": "price of one, in the currency's smallest unit",
            },
            left_out={_SAME: ("user_id",)},
            on_closing=Anonymous(_RECORDS),
        ),
        RETENTION: Kept(_RECORDS, _BY_ORDER),
    },
)

# orders placed by functions that do not know it have none: their total is the sum of order_lines
order_price_lines = Table(
    "order_price_lines",
    METADATA,
    Column("order_id", UUID, nullable=False),
    Column("line", Integer, nullable=False),
    Column("user_id", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("product_id", BigInteger, ForeignKey("shop.products.product_id")),
    Column("amount_minor", BigInteger, nullable=False),
    Column("vat_minor", BigInteger, nullable=False),
    Column("vat_basis_points", Integer, nullable=False),
    PrimaryKeyConstraint("order_id", "line"),
    ForeignKeyConstraint(["order_id", "user_id"], ["shop.orders.order_id", "shop.orders.user_id"]),
    CheckConstraint(_one_of("kind", PriceLineKind), name="known_price_line"),
    CheckConstraint(
        "case when kind = 'DISCOUNT' then amount_minor < 0 else amount_minor > 0 end",
        name="price_line_sign",
    ),
    CheckConstraint("(kind = 'SHIPPING') = (product_id is null)", name="goods_iff_product"),
    CheckConstraint("abs(vat_minor) <= abs(amount_minor)", name="vat_is_a_part"),
    comment="writer: ordering.orders",
    info={
        PERSONAL: PersonalData(
            rows=_OF_ORDERS,
            why=f"to fulfil the order; {_LAW}",
            held={
                "order_id": "number of the order",
                "kind": "goods, discount or shipping",
                "product_id": "number of the product",
                "amount_minor": "amount, in the currency's smallest unit",
                "vat_minor": "the part of it that is value added tax",
                "vat_basis_points": "rate of that tax",
            },
            left_out={_SAME: ("user_id",), _TECHNICAL: ("line",)},
            on_closing=Anonymous(_RECORDS),
        ),
        RETENTION: Kept(_RECORDS, _BY_ORDER),
    },
)

# versions are never changed: each order has the number of its own
shipping_fees = Table(
    "shipping_fees",
    METADATA,
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("free_from_minor", BigInteger),
    Column("vat_basis_points", Integer, nullable=False),
    Column("currency", CHAR(3), nullable=False),
    Column("surcharges", JSONB, nullable=False),
    _when("starts_at", default=False),
    _when("created_at"),
    CheckConstraint("amount_minor >= 0", name="fee_not_negative"),
    CheckConstraint("free_from_minor > 0", name="free_from_an_amount"),
    CheckConstraint("vat_basis_points between 0 and 10000", name="fee_vat_is_a_rate"),
    CheckConstraint("jsonb_typeof(surcharges) = 'array'", name="surcharges_are_a_list"),
    CheckConstraint("starts_at >= created_at", name="fee_begins_later"),
    comment="writer: shipping_fees",
    info={
        PERSONAL: Impersonal("what shipping costs"),
        RETENTION: Bounded("what staff create"),
    },
)

# the terms of a discount never change, so that orders can be computed again
coupons = Table(
    "coupons",
    METADATA,
    Column("code", Text, primary_key=True),
    Column("discount_minor", BigInteger),
    Column("discount_basis_points", Integer),
    Column("discount_max_minor", BigInteger),
    Column("currency", CHAR(3), nullable=False),
    Column("goods_min_minor", BigInteger, nullable=False),
    Column("combinable", Boolean, nullable=False),
    _when("starts_at", default=False),
    _when("ends_at", nullable=True),
    Column("uses_max", Integer),
    Column("uses_per_customer_max", Integer),
    Column("uses", Integer, nullable=False, server_default=text("0")),
    Column("state", Text, nullable=False, server_default=text("'ACTIVE'")),
    Column("version", Integer, nullable=False, server_default=text("1")),
    _when("created_at"),
    _when("updated_at"),
    CheckConstraint("code ~ '^[A-Z0-9][A-Z0-9-]{2,31}$'", name="coupon_code_form"),
    CheckConstraint(
        "(discount_minor is null) <> (discount_basis_points is null)", name="one_kind_of_discount"
    ),
    CheckConstraint("discount_minor > 0", name="discount_is_positive"),
    CheckConstraint("discount_basis_points between 1 and 10000", name="discount_is_a_part"),
    CheckConstraint(
        "discount_max_minor is null or discount_max_minor > 0 "
        "and discount_basis_points is not null",
        name="maximum_of_a_part",
    ),
    CheckConstraint("goods_min_minor >= 0", name="goods_minimum_not_negative"),
    CheckConstraint("starts_at < ends_at", name="coupon_starts_before_it_ends"),
    CheckConstraint("uses_per_customer_max > 0", name="customers_may_use_it"),
    CheckConstraint("uses >= 0 and uses <= uses_max", name="uses_le_limit"),
    CheckConstraint(_one_of("state", CouponState), name="known_coupon_state"),
    comment="writer: coupons",
    info={
        PERSONAL: Impersonal("terms of coupons, and how often each is used"),
        RETENTION: Bounded("what staff create"),
    },
)

# a use that was given back no longer counts
coupon_uses = Table(
    "coupon_uses",
    METADATA,
    Column("order_id", UUID, nullable=False),
    Column("code", Text, ForeignKey("shop.coupons.code"), nullable=False),
    Column("user_id", BigInteger, nullable=False),
    Column("discount_minor", BigInteger, nullable=False),
    _when("given_back_at", nullable=True),
    PrimaryKeyConstraint("order_id", "code"),
    ForeignKeyConstraint(["order_id", "user_id"], ["shop.orders.order_id", "shop.orders.user_id"]),
    CheckConstraint("discount_minor > 0", name="used_discount_is_positive"),
    Index(
        "coupon_uses_of_customer",
        "user_id",
        "code",
        postgresql_where=text("given_back_at is null"),
    ),
    comment="writer: coupons",
    info={
        PERSONAL: PersonalData(
            rows=_OF_ORDERS,
            why=f"to limit how often a coupon is used; {_LAW}",
            held={
                "order_id": "number of the order",
                "code": "the coupon",
                "discount_minor": "what it took off, in the currency's smallest unit",
                "given_back_at": "when it could be used again, because the order was not paid",
            },
            left_out={_SAME: ("user_id",)},
            on_closing=Anonymous(_RECORDS),
        ),
        RETENTION: Kept(_RECORDS, _BY_ORDER),
    },
)

reservations = Table(
    "reservations",
    METADATA,
    Column("reservation_id", UUID, primary_key=True),
    Column("order_id", UUID, ForeignKey("shop.orders.order_id"), nullable=False),
    Column("product_id", BigInteger, ForeignKey("shop.stock.product_id"), nullable=False),
    Column("qty", Integer, nullable=False),
    Column("status", Text, nullable=False),
    # of a COMMITTED one: units that were put back into the stock, one line after the other
    Column("returned_qty", Integer, nullable=False, server_default=text("0")),
    CheckConstraint("qty > 0", name="reservation_qty_is_positive"),
    CheckConstraint("returned_qty between 0 and qty", name="returned_le_reserved"),
    CheckConstraint(
        _one_of("status", ReservationStatus),
        name="known_reservation_status",
    ),
    UniqueConstraint("order_id", "product_id", name="one_reservation_per_line"),
    Index("reservations_held", "product_id", postgresql_where=text("status = 'HELD'")),
    comment="writer: inventory",
    info={
        PERSONAL: Impersonal("the stock that an order holds, by the number of the order"),
        RETENTION: Kept(_RECORDS, _BY_OWN_ID),
    },
)

stock_moves = Table(
    "stock_moves",
    METADATA,
    Column("seq", BigInteger, Identity(always=True), nullable=False),
    Column("product_id", BigInteger, ForeignKey("shop.stock.product_id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("qty", Integer, nullable=False),
    Column("reservation_id", UUID, ForeignKey("shop.reservations.reservation_id")),
    _when("moved_at"),
    CheckConstraint(_one_of("kind", StockMove), name="known_move"),
    CheckConstraint(
        f"case when kind = 'COUNT' then qty <> 0 when {_one_of('kind', STOCK_DECREASES)} "
        "then qty < 0 else qty > 0 end",
        name="move_sign",
    ),
    CheckConstraint(
        f"({_one_of('kind', MOVES_OF_ORDERS)}) = (reservation_id is not null)",
        name="reservation_iff_sold",
    ),
    UniqueConstraint("reservation_id", "kind", name="one_move_per_reservation"),
    Index("stock_moves_of_product", "product_id", "seq"),
    comment="writer: inventory; append only",
    # moves without a reservation, of which there are few, are of no month
    info={
        PERSONAL: Impersonal("what changed the stock of each product"),
        RETENTION: Kept("the sum of a product's moves is its stock", _MONTHS_KEPT),
        PARTITIONED: Monthly("reservation_id"),
    },
)

# ---------------------------------------------------------------- money

payments = Table(
    "payments",
    METADATA,
    Column("payment_id", UUID, primary_key=True),
    Column("order_id", UUID, nullable=False),
    Column("user_id", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", CHAR(3), nullable=False),
    Column("payment_method", Text, nullable=False),
    Column("late", Boolean, nullable=False, server_default=text("false")),
    Column("provider_key", Text, nullable=False),
    Column("provider_ref", Text),
    Column("refund_reserved_minor", BigInteger, nullable=False, server_default=text("0")),
    Column("tries", Integer, nullable=False, server_default=text("0")),
    _when("created_at"),
    _when("updated_at"),
    _when("charge_not_after", default=False),
    _when("next_try_at", default=False),
    # what the customer has to do, until when, and what the provider gave for it
    Column("action", JSONB),
    _when("act_until", nullable=True),
    Column("action_token", Text),
    CheckConstraint(
        _one_of("status", PaymentStatus),
        name="known_payment_status",
    ),
    CheckConstraint(
        "(status = 'REQUIRES_ACTION') = (action is not null) "
        "and (action is null or act_until is not null) "
        "and (action_token is null or action is not null)",
        name="action_iff_required",
    ),
    CheckConstraint("amount_minor > 0", name="payment_amount_is_positive"),
    CheckConstraint("not late or status = 'CAPTURED'", name="late_is_captured"),
    CheckConstraint(
        "refund_reserved_minor >= 0 and refund_reserved_minor <= "
        "case when status = 'CAPTURED' then amount_minor else 0 end",
        name="refunds_le_capture",
    ),
    ForeignKeyConstraint(["order_id", "user_id"], ["shop.orders.order_id", "shop.orders.user_id"]),
    UniqueConstraint("provider_key", name="one_provider_key"),
    UniqueConstraint("provider_ref", name="one_provider_ref"),
    UniqueConstraint("order_id", "attempt", name="one_attempt"),
    Index(
        "one_open_payment",
        "order_id",
        unique=True,
        postgresql_where=text("status in ('INTENT', 'UNKNOWN', 'REQUIRES_ACTION')"),
    ),
    Index(
        "one_kept_capture",
        "order_id",
        unique=True,
        postgresql_where=text("status = 'CAPTURED' and not late"),
    ),
    Index(
        "payments_due",
        "next_try_at",
        postgresql_where=text("status in ('INTENT', 'UNKNOWN', 'REQUIRES_ACTION')"),
    ),
    Index(
        "payments_by_deadline",
        "act_until",
        postgresql_where=text("status = 'REQUIRES_ACTION'"),
    ),
    Index("payments_by_age", "created_at"),
    Index(
        "payments_open_by_age",
        "created_at",
        postgresql_where=text("status in ('INTENT', 'UNKNOWN')"),
    ),
    comment="writer: ordering.payments",
    info={
        PERSONAL: PersonalData(
            rows=_OF_ORDERS,
            why=f"to collect the total of the order; {_LAW}",
            held={
                **_AMOUNTS,
                "payment_id": "number of the payment",
                "order_id": "number of the order",
                "attempt": "how many times payment was tried",
                "payment_method": "means of payment",
                "provider_ref": "number at the payment provider",
                "refund_reserved_minor": "how much of it was returned",
                "act_until": "until when the customer could complete it",
            },
            left_out={
                _SAME: ("user_id",),
                "can pay, and is kept only until it did": ("action", "action_token"),
                _TECHNICAL: (
                    "late",
                    "provider_key",
                    "tries",
                    "charge_not_after",
                    "next_try_at",
                ),
            },
            on_closing=Anonymous(_RECORDS),
        ),
        RETENTION: Kept(_RECORDS, _BY_OWN_ID),
    },
)

refunds = Table(
    "refunds",
    METADATA,
    Column("refund_id", UUID, primary_key=True),
    Column("payment_id", UUID, ForeignKey("shop.payments.payment_id"), nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", CHAR(3), nullable=False),
    Column("status", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("origin", Text, nullable=False, server_default=text("'SHOP'")),
    Column("requested_by", BigInteger),
    Column("means", Text, nullable=False, server_default=text("'PROVIDER'")),
    Column("reference", Text),
    Column("restock", Boolean, nullable=False, server_default=text("false")),
    Column("provider_key", Text, nullable=False),
    Column("tries", Integer, nullable=False, server_default=text("0")),
    _when("created_at"),
    _when("updated_at"),
    _when("next_try_at", default=False),
    CheckConstraint("amount_minor > 0", name="refund_amount_is_positive"),
    CheckConstraint(
        _one_of("status", RefundStatus),
        name="known_refund_status",
    ),
    CheckConstraint(_one_of("means", RefundMeans), name="known_refund_means"),
    CheckConstraint(
        "(means = 'OTHER_MEANS') = (reference is not null)", name="other_means_has_a_reference"
    ),
    CheckConstraint(_one_of("origin", RefundOrigin), name="known_refund_origin"),
    UniqueConstraint("provider_key", name="one_refund_key"),
    Index("refunds_by_payment", "payment_id"),
    Index(
        "refunds_open_by_age",
        "created_at",
        postgresql_where=text("status in ('INTENT', 'UNKNOWN')"),
    ),
    Index(
        "refunds_to_resolve",
        "next_try_at",
        postgresql_where=text("status in ('INTENT', 'UNKNOWN')"),
    ),
    comment="writer: ordering.refunds",
    info={
        PERSONAL: PersonalData(
            rows=f"{_BEFORE_CLOSING.format('t.created_at')} and {_OF_PAYMENTS}",
            why=f"to return money; {_LAW}",
            held={
                **_AMOUNTS,
                "refund_id": "number of the refund",
                "payment_id": "number of the payment",
                "reason": "why, as support noted it",
                "origin": "who returned it",
                "means": "how it was returned",
                "reference": "number of a transfer by other means",
            },
            left_out={
                "another person, of support": ("requested_by",),
                _TECHNICAL: ("restock", "provider_key", "tries", "next_try_at"),
            },
            on_closing=Overwritten({"reason": "''"}),
        ),
        RETENTION: Kept(_RECORDS, _BY_OWN_ID),
    },
)

disputes = Table(
    "disputes",
    METADATA,
    Column("dispute_id", UUID, primary_key=True),
    Column("payment_id", UUID, ForeignKey("shop.payments.payment_id"), nullable=False),
    Column("provider_ref", Text, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", CHAR(3), nullable=False),
    Column("status", Text, nullable=False),
    _when("created_at"),
    _when("updated_at"),
    CheckConstraint("amount_minor > 0", name="dispute_amount_is_positive"),
    CheckConstraint(_one_of("status", DisputeStatus), name="known_dispute_status"),
    UniqueConstraint("provider_ref", name="one_dispute_ref"),
    Index("disputes_by_payment", "payment_id"),
    Index("disputes_open_by_age", "created_at", postgresql_where=text("status = 'OPEN'")),
    comment="writer: ordering.disputes",
    info={
        PERSONAL: PersonalData(
            rows=_OF_PAYMENTS,
            why=f"to answer the customer's bank; {_LAW}",
            held={
                **_AMOUNTS,
                "dispute_id": "number of the dispute",
                "payment_id": "number of the payment",
                "provider_ref": "number at the payment provider",
            },
            left_out={},
            on_closing=Anonymous(_RECORDS),
        ),
        RETENTION: Kept(_RECORDS, _BY_OWN_ID),
    },
)

# ---------------------------------------------------------------- shipments

saved_addresses = Table(
    "saved_addresses",
    METADATA,
    Column("address_id", UUID, primary_key=True),
    Column("user_id", BigInteger, ForeignKey("shop.users.user_id"), nullable=False),
    Column("recipient", Text, nullable=False),
    Column("phone", Text, nullable=False),
    Column("country", CHAR(2), nullable=False),
    Column("postcode", Text),
    Column("region", Text),
    Column("city", Text),
    Column("line1", Text, nullable=False),
    Column("line2", Text),
    Column("chosen_at", DateTime(timezone=True)),
    _when("created_at"),
    _when("updated_at"),
    CheckConstraint("country <> 'KR' or postcode ~ '^[0-9]{5}$'", name="korean_postcode"),
    Index("saved_addresses_by_user", "user_id"),
    comment="writer: saved_addresses",
    info={
        PERSONAL: PersonalData(
            rows="t.user_id = u.user_id",
            why="to offer the addresses to which the customer has orders sent",
            held={
                "address_id": "number of the address",
                "recipient": "name of the recipient",
                "phone": "telephone number of the recipient",
                "country": "country",
                "postcode": "postcode",
                "region": "region",
                "city": "city",
                "line1": "address",
                "line2": "rest of the address",
                "chosen_at": "when it was made the default",
                "created_at": "when it was added",
                "updated_at": "when it was changed",
            },
            left_out={_SAME: ("user_id",)},
            on_closing=Erased(),
        ),
        RETENTION: Bounded("20 addresses an account"),
    },
)

order_addresses = Table(
    "order_addresses",
    METADATA,
    Column("order_id", UUID, primary_key=True),
    Column("user_id", BigInteger, nullable=False),
    Column("recipient", Text, nullable=False),
    Column("phone", Text, nullable=False),
    Column("country", CHAR(2), nullable=False),
    Column("postcode", Text),
    Column("region", Text),
    Column("city", Text),
    Column("line1", Text, nullable=False),
    Column("line2", Text),
    _when("created_at"),
    ForeignKeyConstraint(["order_id", "user_id"], ["shop.orders.order_id", "shop.orders.user_id"]),
    CheckConstraint("country <> 'KR' or postcode ~ '^[0-9]{5}$'", name="korean_postcode"),
    Index("order_addresses_by_user", "user_id"),
    Index("order_addresses_by_age", "created_at"),
    comment="writer: ordering.addresses",
    info={
        PERSONAL: PersonalData(
            rows="t.user_id = u.user_id",
            why="to deliver the order",
            held={
                "order_id": "number of the order",
                "recipient": "name of the recipient",
                "phone": "telephone number of the recipient",
                "country": "country",
                "postcode": "postcode",
                "region": "region",
                "city": "city",
                "line1": "address",
                "line2": "rest of the address",
                "created_at": "when the order was placed",
            },
            left_out={_SAME: ("user_id",)},
            on_closing=Erased(),
        ),
        # the record of the supply of goods, five years by Korean law
        RETENTION: (DeletedAfter("1825 days", "created_at", "order_addresses", least="30 days"),),
    },
)

shipments = Table(
    "shipments",
    METADATA,
    Column("shipment_id", UUID, primary_key=True),
    Column("order_id", UUID, ForeignKey("shop.orders.order_id"), nullable=False),
    Column("status", Text, nullable=False),
    Column("carrier", Text),
    Column("tracking_number", Text),
    _when("created_at"),
    _when("updated_at"),
    _when("shipped_at", nullable=True),
    _when("delivered_at", nullable=True),
    CheckConstraint(_one_of("status", ShipmentStatus), name="known_shipment_status"),
    CheckConstraint(
        "num_nonnulls(carrier, tracking_number, shipped_at) = "
        "case when status in ('SHIPPED', 'DELIVERED') then 3 else 0 end",
        name="sent_iff_with_a_carrier",
    ),
    CheckConstraint(
        "(status = 'DELIVERED') = (delivered_at is not null)", name="delivered_iff_at_a_time"
    ),
    UniqueConstraint("shipment_id", "order_id", name="one_order_per_shipment"),
    # carriers use numbers again, but not while a parcel is under way
    Index(
        "one_parcel_per_number",
        "carrier",
        "tracking_number",
        unique=True,
        postgresql_where=text("status = 'SHIPPED'"),
    ),
    Index(
        "shipments_by_number",
        "carrier",
        "tracking_number",
        postgresql_where=text("tracking_number is not null"),
    ),
    Index("shipments_by_order", "order_id"),
    Index(
        "shipments_preparing_by_age", "created_at", postgresql_where=text("status = 'PREPARING'")
    ),
    Index("shipments_sent_by_age", "shipped_at", postgresql_where=text("status = 'SHIPPED'")),
    comment="writer: ordering.shipments",
    info={
        PERSONAL: PersonalData(
            rows=_OF_ORDERS,
            why=f"to deliver the order; {_LAW}",
            held={
                "shipment_id": "number of the shipment",
                "order_id": "number of the order",
                "status": "status",
                "carrier": "carrier",
                "tracking_number": "number at the carrier",
                "created_at": "when packing began",
                "updated_at": "when it last changed",
                "shipped_at": "when it was sent",
                "delivered_at": "when it was delivered",
            },
            left_out={},
            on_closing=Anonymous(_RECORDS),
        ),
        RETENTION: Kept(_RECORDS, _BY_OWN_ID),
    },
)

shipment_lines = Table(
    "shipment_lines",
    METADATA,
    Column("shipment_id", UUID, nullable=False),
    Column("order_id", UUID, nullable=False),
    Column("product_id", BigInteger, nullable=False),
    Column("qty", Integer, nullable=False),
    PrimaryKeyConstraint("shipment_id", "product_id"),
    ForeignKeyConstraint(
        ["shipment_id", "order_id"], ["shop.shipments.shipment_id", "shop.shipments.order_id"]
    ),
    ForeignKeyConstraint(
        ["order_id", "product_id"], ["shop.order_lines.order_id", "shop.order_lines.product_id"]
    ),
    CheckConstraint("qty > 0", name="shipped_qty_is_positive"),
    comment="writer: ordering.shipments; append only",
    info={
        PERSONAL: PersonalData(
            rows=_OF_SHIPMENTS,
            why=f"to deliver the order; {_LAW}",
            held={
                "shipment_id": "number of the shipment",
                "order_id": "number of the order",
                "product_id": "number of the product",
                "qty": "quantity",
            },
            left_out={},
            on_closing=Anonymous(_RECORDS),
        ),
        RETENTION: Kept(_RECORDS, "range of shipment_id, a UUIDv7 and so a time: one a quarter"),
    },
)

returns = Table(
    "returns",
    METADATA,
    Column("return_id", UUID, primary_key=True),
    Column("order_id", UUID, ForeignKey("shop.orders.order_id"), nullable=False),
    Column("status", Text, nullable=False),
    Column("reason", Text, nullable=False),
    _when("created_at"),
    _when("updated_at"),
    CheckConstraint(_one_of("status", ReturnStatus), name="known_return_status"),
    CheckConstraint("char_length(reason) <= 200", name="return_reason_length"),
    UniqueConstraint("return_id", "order_id", name="one_order_per_return"),
    Index("returns_by_order", "order_id"),
    Index(
        "returns_open_by_age",
        "updated_at",
        postgresql_where=text("status in ('REQUESTED', 'APPROVED')"),
    ),
    comment="writer: ordering.returns",
    info={
        PERSONAL: PersonalData(
            rows=f"{_BEFORE_CLOSING.format('t.created_at')} and {_OF_ORDERS}",
            why=f"to take goods back; {_LAW}",
            held={
                "return_id": "number of the return",
                "order_id": "number of the order",
                "status": "status",
                "reason": "why, as the customer wrote it",
                "created_at": "when it was requested",
                "updated_at": "when it last changed",
            },
            left_out={},
            on_closing=Overwritten({"reason": "''"}),
        ),
        RETENTION: Kept(_RECORDS, _BY_OWN_ID),
    },
)

return_lines = Table(
    "return_lines",
    METADATA,
    Column("return_id", UUID, nullable=False),
    Column("order_id", UUID, nullable=False),
    Column("product_id", BigInteger, nullable=False),
    Column("qty", Integer, nullable=False),
    # null until the units are given back
    Column("restocked_qty", Integer),
    Column("amount_minor", BigInteger),
    PrimaryKeyConstraint("return_id", "product_id"),
    ForeignKeyConstraint(
        ["return_id", "order_id"], ["shop.returns.return_id", "shop.returns.order_id"]
    ),
    ForeignKeyConstraint(
        ["order_id", "product_id"], ["shop.order_lines.order_id", "shop.order_lines.product_id"]
    ),
    CheckConstraint("qty > 0", name="returned_line_qty_is_positive"),
    CheckConstraint("restocked_qty between 0 and qty", name="restocked_le_returned"),
    CheckConstraint("amount_minor >= 0", name="returned_amount_not_negative"),
    CheckConstraint(
        "(restocked_qty is null) = (amount_minor is null)", name="given_back_as_a_whole"
    ),
    comment="writer: ordering.returns",
    info={
        PERSONAL: PersonalData(
            rows=_OF_RETURNS,
            why=f"to take goods back; {_LAW}",
            held={
                "return_id": "number of the return",
                "order_id": "number of the order",
                "product_id": "number of the product",
                "qty": "quantity",
                "amount_minor": "what was returned for it, in the currency's smallest unit",
            },
            left_out={_TECHNICAL: ("restocked_qty",)},
            on_closing=Anonymous(_RECORDS),
        ),
        RETENTION: Kept(_RECORDS, "range of return_id, a UUIDv7 and so a time: one a quarter"),
    },
)

# ---------------------------------------------------------------- the ledger

ledger = Table(
    "ledger",
    METADATA,
    Column("seq", BigInteger, Identity(always=True), nullable=False),
    Column("kind", Text, nullable=False),
    Column("source_id", UUID, nullable=False),
    Column("order_id", UUID, ForeignKey("shop.orders.order_id"), nullable=False),
    Column("debit", Text, nullable=False),
    Column("credit", Text, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", CHAR(3), nullable=False),
    _when("posted_at"),
    Column("chain", SmallInteger, nullable=False),
    Column("chain_seq", BigInteger, nullable=False),
    Column("prev_hash", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    CheckConstraint(_one_of("kind", PostingKind), name="known_posting"),
    CheckConstraint("amount_minor > 0", name="posting_amount_is_positive"),
    CheckConstraint("debit <> credit", name="two_sides"),
    # the order in which postings are settled; what is unique in all months is in ledger_keys
    PrimaryKeyConstraint("posted_at", "seq"),
    Index("ledger_by_order", "order_id"),
    comment="writer: ledger; append only; chained by trigger",
    info={
        PERSONAL: PersonalData(
            rows=_OF_ORDERS,
            why=_LAW,
            held={
                "kind": "what was posted",
                "order_id": "number of the order",
                "debit": "debited account",
                "credit": "credited account",
                "amount_minor": "amount, in the currency's smallest unit",
                "currency": "currency",
                "posted_at": "when it was posted",
            },
            left_out={
                _TECHNICAL: ("seq", "source_id", "chain", "chain_seq", "prev_hash", "hash"),
            },
            on_closing=Anonymous(_RECORDS),
        ),
        RETENTION: Kept("every posting is a link of a hash chain", _MONTHS_KEPT),
        PARTITIONED: Monthly("posted_at"),
    },
)

# What is unique among the postings of all months; a unique key of ledger itself would have to
# contain posted_at.
ledger_keys = Table(
    "ledger_keys",
    METADATA,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),
    Column("source_id", UUID, nullable=False),
    Column("chain", SmallInteger, nullable=False),
    Column("chain_seq", BigInteger, nullable=False),
    UniqueConstraint("kind", "source_id", name="one_posting_per_source"),
    UniqueConstraint("chain", "chain_seq", name="one_link_per_place"),
    comment="writer: the trigger on ledger; append only",
    info={
        PERSONAL: Impersonal("the numbers of what was posted"),
        RETENTION: Kept(
            "the keys of every posting, which is posted once for ever",
            "none: a partition would limit a unique key to its month",
        ),
    },
)

ledger_chains = Table(
    "ledger_chains",
    METADATA,
    Column("chain", SmallInteger, primary_key=True, autoincrement=False),
    Column("chain_seq", BigInteger, nullable=False, server_default=text("0")),
    Column("hash", LargeBinary, nullable=False),
    comment="writer: the trigger on ledger",
    info={
        PERSONAL: Impersonal("the last posting of each chain"),
        RETENTION: Bounded("the sixteen chains"),
    },
)

settlements = Table(
    "settlements",
    METADATA,
    Column("day", Date, nullable=False),
    Column("currency", CHAR(3), nullable=False),
    Column("captures_minor", BigInteger, nullable=False),
    Column("refunds_minor", BigInteger, nullable=False),
    Column("captures", Integer, nullable=False),
    Column("n", Integer, nullable=False),
    _when("closed_at"),
    PrimaryKeyConstraint("day", "currency"),
    comment="writer: settlement; append only",
    info={PERSONAL: Impersonal("sums of a day"), RETENTION: Bounded("one row a day and currency")},
)

# A day's postings in the order of their times; its settlement is the sum of its batches.
settlement_batches = Table(
    "settlement_batches",
    METADATA,
    Column("day", Date, nullable=False),
    Column("batch", Integer, nullable=False),
    Column("currency", CHAR(3), nullable=False),
    Column("captures_minor", BigInteger, nullable=False),
    Column("refunds_minor", BigInteger, nullable=False),
    Column("captures", Integer, nullable=False),
    Column("n", Integer, nullable=False),
    _when("last_posted_at", default=False),
    Column("last_seq", BigInteger, nullable=False),
    _when("settled_at"),
    PrimaryKeyConstraint("day", "batch", "currency"),
    comment="writer: settlement; append only",
    info={
        PERSONAL: Impersonal("sums of a day"),
        RETENTION: Bounded("a few rows a day and currency"),
    },
)

# Written before the day's row in settlements, so there is no foreign key; invariant I-19 compares.
settlement_lines = Table(
    "settlement_lines",
    METADATA,
    Column(
        "seq", BigInteger, ForeignKey("shop.ledger_keys.seq"), primary_key=True, autoincrement=False
    ),
    Column("day", Date, nullable=False),
    Column("currency", CHAR(3), nullable=False),
    comment="writer: settlement; append only",
    info={
        PERSONAL: Impersonal("which postings a day has, by their numbers"),
        RETENTION: Kept("which postings a closed day contains", _BY_SEQ),
    },
)

# ---------------------------------------------------------------- events and idempotency keys

outbox = Table(
    "outbox",
    METADATA,
    Column("event_id", UUID, primary_key=True),
    Column("source", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("order_id", UUID),
    Column("data", JSONB, nullable=False),
    Column("traceparent", Text, nullable=False),
    _when("created_at"),
    _when("sent_at", nullable=True),
    _when("done_at", nullable=True),
    _when("parked_at", nullable=True),
    Column("tries", Integer, nullable=False, server_default=text("0")),
    _when("next_try_at", default=False),
    Index(
        "outbox_open",
        "next_try_at",
        postgresql_where=text("done_at is null and parked_at is null"),
    ),
    Index(
        "outbox_open_by_age",
        "created_at",
        postgresql_where=text("done_at is null and parked_at is null"),
    ),
    Index("outbox_by_order", "order_id"),
    Index("outbox_done", "done_at", postgresql_where=text("done_at is not null")),
    Index("outbox_quarantined", "parked_at", postgresql_where=text("parked_at is not null")),
    comment="writer: outbox",
    info={
        PERSONAL: Impersonal("events, which have numbers of accounts and orders and nothing else"),
        RETENTION: (
            DeletedAfter("30 days", "done_at", "outbox"),
            DeletedAfter("30 days", "parked_at", "quarantined"),
        ),
        PARTITIONED: Monthly(
            "event_id",
            "shop.%1$I where done_at is null and parked_at is null order by next_try_at",
        ),
    },
)

subscriptions = Table(
    "subscriptions",
    METADATA,
    Column("type", Text, nullable=False),
    Column("consumer", Text, nullable=False),
    PrimaryKeyConstraint("type", "consumer"),
    comment="writer: tools.migrate (from the specs)",
    info={
        PERSONAL: Impersonal("which function consumes what"),
        RETENTION: Bounded("the subscriptions of the specs"),
    },
)

inbox = Table(
    "inbox",
    METADATA,
    Column("consumer", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    _when("received_at"),
    PrimaryKeyConstraint("consumer", "source", "event_id"),
    Index("inbox_by_age", "received_at"),
    comment="writer: inbox; append only",
    info={
        PERSONAL: Impersonal("the numbers of consumed events"),
        RETENTION: (DeletedAfter("60 days", "received_at", "inbox"),),
        # an event that is in the outbox can be delivered again, however old it is
        PARTITIONED: Monthly("event_id", "shop.outbox where event_id >= $1 and event_id < $2"),
    },
)

idempotency = Table(
    "idempotency",
    METADATA,
    Column("user_id", BigInteger, nullable=False),
    Column("scope", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("state", Text, nullable=False),
    Column("status_code", Integer),
    Column("headers", JSONB),
    Column("body", LargeBinary),
    _when("created_at"),
    PrimaryKeyConstraint("user_id", "scope", "key"),
    CheckConstraint(_one_of("state", KeyState), name="known_key_state"),
    CheckConstraint(
        "(state = 'DONE') = (status_code is not null and body is not null)",
        name="done_has_answer",
    ),
    Index("idempotency_by_age", "created_at"),
    comment="writer: idempotency",
    info={
        PERSONAL: PersonalData(
            rows=_RESPONSES,
            why="to answer a repeated request as the first one, and to do nothing twice",
            held={
                "scope": "the request",
                "key": "its Idempotency-Key",
                "status_code": "status of the response",
                "body": "the response",
                "created_at": "when it was received",
            },
            left_out={
                "the account, or the operator who sent it": ("user_id",),
                _TECHNICAL: ("fingerprint", "state", "headers"),
            },
            on_closing=Erased(),
        ),
        RETENTION: (DeletedAfter("7 days", "created_at", "idempotency"),),
    },
)

allowed_transitions = Table(
    "allowed_transitions",
    METADATA,
    Column("entity", Text, nullable=False),
    Column("from_status", Text, nullable=False),
    Column("to_status", Text, nullable=False),
    Column("event_type", Text),
    PrimaryKeyConstraint("entity", "from_status", "to_status"),
    comment="writer: the migrations",
    info={
        PERSONAL: Impersonal("which status may follow which"),
        RETENTION: Bounded("the declared transitions"),
    },
)

transitions = Table(
    "transitions",
    METADATA,
    Column("seq", BigInteger, Identity(always=True), nullable=False),
    Column("entity", Text, nullable=False),
    Column("entity_id", UUID, nullable=False),
    Column("order_id", UUID, nullable=False),
    Column("from_status", Text, nullable=False),
    Column("to_status", Text, nullable=False),
    Column("event_id", UUID),
    Column("actor", Text, nullable=False),
    _when("at"),
    ForeignKeyConstraint(
        ["entity", "from_status", "to_status"],
        [
            "shop.allowed_transitions.entity",
            "shop.allowed_transitions.from_status",
            "shop.allowed_transitions.to_status",
        ],
        name="transition_is_allowed",
    ),
    PrimaryKeyConstraint("order_id", "seq"),
    # of all orders by the primary key of outbox, and by I-17
    UniqueConstraint("order_id", "event_id", name="one_transition_per_event"),
    comment="writer: transitions; append only",
    info={
        PERSONAL: PersonalData(
            rows=_OF_ORDERS,
            why=f"to explain what became of an order; {_LAW}",
            held={
                "entity": "order, payment, refund or reservation",
                "entity_id": "its number",
                "order_id": "number of the order",
                "from_status": "status before",
                "to_status": "status after",
                "at": "when it changed",
            },
            left_out={
                "may be another person, of support": ("actor",),
                _TECHNICAL: ("seq", "event_id"),
            },
            on_closing=Anonymous(_RECORDS),
        ),
        RETENTION: Kept("the history of every order, compared by the checks", _MONTHS_KEPT),
        PARTITIONED: Monthly("order_id"),
    },
)

# One mail of an event.  Neither its text nor its address is stored: both are read when it is sent.
mails = Table(
    "mails",
    METADATA,
    Column("event_id", UUID, primary_key=True),
    Column("kind", Text, nullable=False),
    # of the order, refund, account or link that the mail is about
    Column("subject_id", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("failure", Text),
    Column("reply_code", SmallInteger),
    Column("tries", Integer, nullable=False, server_default=text("0")),
    _when("created_at"),
    _when("updated_at"),
    _when("next_try_at", default=False),
    # what a delivery status notification reported after the server had accepted the mail
    Column("bounce", Text),
    Column("bounce_code", Text),
    _when("bounced_at", nullable=True),
    CheckConstraint(_one_of("kind", MailKind), name="known_mail_kind"),
    CheckConstraint(_one_of("status", MailStatus), name="known_mail_status"),
    CheckConstraint(_one_of("failure", MailFailure), name="known_mail_failure"),
    CheckConstraint("tries >= 0", name="mail_tries_not_negative"),
    CheckConstraint(
        "status <> 'FAILED' or failure in ('REJECTED', 'EXHAUSTED', 'OBSOLETE')",
        name="failed_mail_has_a_final_failure",
    ),
    CheckConstraint(_one_of("bounce", Bounce), name="known_mail_bounce"),
    CheckConstraint(
        "num_nulls(bounce, bounce_code, bounced_at) in (0, 3)", name="mail_bounce_is_whole"
    ),
    CheckConstraint(
        "bounce_code ~ '^[45]\\.[0-9]{1,3}\\.[0-9]{1,3}$'", name="mail_bounce_code_is_a_code"
    ),
    Index(
        "mails_open",
        "next_try_at",
        postgresql_where=text("status in ('PENDING', 'SENDING', 'UNKNOWN')"),
    ),
    Index(
        "mails_open_by_age",
        "created_at",
        postgresql_where=text("status in ('PENDING', 'SENDING', 'UNKNOWN')"),
    ),
    Index("mails_by_age", "created_at"),
    comment="writer: mails",
    info={
        PERSONAL: Impersonal("which mails were sent, by the numbers of orders, accounts and links"),
        RETENTION: (DeletedAfter("90 days", "created_at", "mails"),),
    },
)

# ---------------------------------------------------------------- operations

dead_letters = Table(
    "dead_letters",
    METADATA,
    Column("dead_letter_id", UUID, primary_key=True),
    Column("event_id", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("subject", Text),
    Column("destination", Text, nullable=False),
    Column("error_code", Text),
    Column("error_data", Text),
    Column("headers", JSONB, nullable=False),
    Column("body", LargeBinary, nullable=False),
    _when("received_at"),
    _when("replayed_at", nullable=True),
    _when("dropped_at", nullable=True),
    Column("dropped_reason", Text),
    CheckConstraint("(dropped_at is null) = (dropped_reason is null)", name="dropped_for_a_reason"),
    UniqueConstraint("source", "event_id", "destination", name="one_dead_letter_per_consumer"),
    Index("dead_letters_by_age", "received_at"),
    Index("dead_letters_open", "received_at", postgresql_where=text("replayed_at is null")),
    comment="writer: dead_letters",
    info={
        PERSONAL: Impersonal("events that could not be processed, which have numbers only"),
        RETENTION: (DeletedAfter("90 days", "received_at", "dead_letters"),),
    },
)

alarms = Table(
    "alarms",
    METADATA,
    Column("alarm_id", UUID, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("detail", Text, nullable=False),
    _when("raised_at"),
    _when("resolved_at", nullable=True),
    Column("note", Text),
    CheckConstraint("note is null or resolved_at is not null", name="note_of_a_resolved_alert"),
    Index("alarms_open", "raised_at", postgresql_where=text("resolved_at is null")),
    Index("alerts_by_subject", "kind", "subject"),
    Index("alerts_resolved", "resolved_at", postgresql_where=text("resolved_at is not null")),
    Index(
        "one_open_alarm",
        "kind",
        "subject",
        unique=True,
        postgresql_where=text("resolved_at is null"),
    ),
    comment="writer: alarms",
    info={
        PERSONAL: Impersonal("what operators have to look at, by its number"),
        RETENTION: (DeletedAfter("180 days", "resolved_at", "alarms"),),
    },
)

reconciliation = Table(
    "reconciliation",
    METADATA,
    Column("provider", Text, primary_key=True),
    Column("cursor", Text, nullable=False),
    _when("ran_at"),
    _when("next_run_at", default=False),
    Column("run_number", BigInteger, nullable=False, server_default=text("0")),
    comment="writer: reconciliation",
    info={
        PERSONAL: Impersonal("up to where the provider's records are compared"),
        RETENTION: Bounded("one row a payment provider"),
    },
)

audit_log = Table(
    "audit_log",
    METADATA,
    Column("seq", BigInteger, Identity(always=True), primary_key=True),
    _when("at"),
    Column("actor_kind", Text, nullable=False),
    Column("actor_id", BigInteger),
    Column("actor_role", Text),
    Column("action", Text, nullable=False),
    Column("object_kind", Text, nullable=False),
    Column("object_id", Text, nullable=False),
    Column("before", JSONB),
    Column("after", JSONB),
    Column("trace_id", Text, nullable=False),
    CheckConstraint(_one_of("actor_kind", ActorKind), name="known_actor_kind"),
    CheckConstraint("(actor_kind = 'COMMAND') = (actor_id is null)", name="command_has_no_id"),
    Index("audit_log_by_actor", "actor_id", "seq"),
    Index("audit_log_by_action", "action", "seq"),
    Index("audit_log_by_object", "object_kind", "object_id", "seq"),
    comment="writer: audit_log; append only",
    info={
        PERSONAL: PersonalData(
            rows=f"t.actor_id = u.user_id or {_ENTRIES.format('t')}",
            why="to show who changed what",
            held={
                "at": "when it was done",
                "actor_kind": "by a person, a service or a command",
                "actor_role": "in which role",
                "action": "what was done",
                "object_kind": "to what",
                "object_id": "its number",
                "before": "values before",
                "after": "values after",
            },
            left_out={
                "may be another person, an operator": ("actor_id",),
                _TECHNICAL: ("seq", "trace_id"),
            },
            on_closing=Anonymous("it has numbers only, and must not be changed"),
        ),
        RETENTION: Kept("who changed what; it has ids and no personal data", _BY_SEQ),
    },
)

# Free text of operators, which may name a person: kept as long as records of consumers' complaints
# have to be (the same decree, article 6).
notes = Table(
    "notes",
    METADATA,
    Column("note_id", UUID, primary_key=True),
    Column("order_id", UUID, ForeignKey("shop.orders.order_id")),
    Column("user_id", BigInteger, ForeignKey("shop.users.user_id")),
    Column("author_id", BigInteger, ForeignKey("shop.users.user_id"), nullable=False),
    Column("text", Text, nullable=False),
    _when("at"),
    CheckConstraint("num_nonnulls(order_id, user_id) = 1", name="about_one"),
    CheckConstraint("char_length(text) between 1 and 2000", name="note_length"),
    Index("notes_by_order", "order_id", "note_id", postgresql_where=text("order_id is not null")),
    Index("notes_by_user", "user_id", "note_id", postgresql_where=text("user_id is not null")),
    Index("notes_by_age", "at"),
    comment="writer: notes; append only",
    info={
        PERSONAL: PersonalData(
            rows=f"(t.user_id = u.user_id or {_OF_ORDERS}) and {_BEFORE_CLOSING.format('t.at')}",
            why="to know what operators have agreed with the customer",
            held={
                "order_id": "number of the order that an operator wrote about",
                "at": "when it was written",
            },
            left_out={
                "written by operators for each other": ("text",),
                "the account of an operator": ("author_id",),
                _SAME: ("user_id",),
                _TECHNICAL: ("note_id",),
            },
            on_closing=Erased(),
        ),
        RETENTION: (DeletedAfter("1095 days", "at", "notes"),),
    },
)

audits = Table(
    "audits",
    METADATA,
    Column("name", Text, primary_key=True),
    _when("ran_at"),
    Column("found", Boolean, nullable=False),
    comment="writer: audits",
    info={PERSONAL: Impersonal("when the audits ran"), RETENTION: Bounded("one row an audit")},
)

unmatched_charges = Table(
    "unmatched_charges",
    METADATA,
    Column("provider_key", Text, primary_key=True),
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", CHAR(3)),
    _when("recorded_at"),
    CheckConstraint("amount_minor >= 0", name="unmatched_amount_is_not_negative"),
    CheckConstraint("(amount_minor > 0) = (currency is not null)", name="money_has_a_currency"),
    comment="writer: unmatched_charges; append only",
    info={
        PERSONAL: Impersonal("charges that no order has"),
        RETENTION: Bounded("the unmatched charges that operators close by hand"),
    },
)

# ---------------------------------------------------------------- webhooks

webhooks = Table(
    "webhooks",
    METADATA,
    Column("webhook_id", UUID, primary_key=True),
    Column("url", Text, nullable=False),
    Column("event_types", ARRAY(Text), nullable=False),
    Column("state", Text, nullable=False, server_default=text("'ACTIVE'")),
    Column("disabled_by", Text),
    Column("secret_number", Integer, nullable=False, server_default=text("1")),
    _when("previous_secret_until", nullable=True),
    _when("created_at"),
    _when("active_since"),
    _when("failing_since", nullable=True),
    Column("failed_runs", Integer, nullable=False, server_default=text("0")),
    _when("next_run_at"),
    CheckConstraint(_one_of("state", WebhookState), name="known_webhook_state"),
    CheckConstraint(_one_of("disabled_by", DisabledBy), name="known_disabled_by"),
    CheckConstraint("(state = 'DISABLED') = (disabled_by is not null)", name="disabled_by_one"),
    CheckConstraint("char_length(url) between 1 and 500", name="webhook_url_length"),
    CheckConstraint("cardinality(event_types) > 0", name="webhook_has_event_types"),
    Index("one_webhook_per_url", "url", unique=True, postgresql_where=text("state <> 'DELETED'")),
    comment="writer: webhooks",
    info={
        PERSONAL: Impersonal("addresses of other systems"),
        RETENTION: Bounded("at most 50 that administrators have not deleted"),
    },
)

webhook_deliveries = Table(
    "webhook_deliveries",
    METADATA,
    Column("webhook_id", UUID, ForeignKey("shop.webhooks.webhook_id"), nullable=False),
    Column("event_id", UUID, nullable=False),
    Column("type", Text, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'PENDING'")),
    _when("created_at"),
    _when("scheduled_at"),
    _when("next_try_at"),
    _when("delivered_at", nullable=True),
    Column("tries", Integer, nullable=False, server_default=text("0")),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    PrimaryKeyConstraint("webhook_id", "event_id"),
    CheckConstraint(_one_of("state", DeliveryState), name="known_delivery_state"),
    Index(
        "webhook_deliveries_open",
        "webhook_id",
        "next_try_at",
        postgresql_where=text("state = 'PENDING'"),
    ),
    Index("webhook_deliveries_by_age", "created_at"),
    comment="writer: webhooks; rows are added by the trigger on outbox",
    info={
        PERSONAL: Impersonal("which event is for which other system, by their numbers"),
        RETENTION: (
            DeletedAfter(
                # longer than it is tried
                "30 days",
                "created_at",
                "webhook_deliveries",
                least="4 days",
            ),
        ),
    },
)

webhook_attempts = Table(
    "webhook_attempts",
    METADATA,
    Column("webhook_id", UUID, nullable=False),
    Column("event_id", UUID, nullable=False),
    Column("number", Integer, nullable=False),
    _when("at"),
    Column("milliseconds", Integer, nullable=False),
    Column("status", SmallInteger),
    Column("error", Text),
    Column("request_head", Text, nullable=False),
    Column("response_head", Text, nullable=False),
    PrimaryKeyConstraint("webhook_id", "event_id", "number"),
    ForeignKeyConstraint(
        ["webhook_id", "event_id"],
        ["shop.webhook_deliveries.webhook_id", "shop.webhook_deliveries.event_id"],
        ondelete="CASCADE",
    ),
    comment="writer: webhooks",
    info={
        PERSONAL: Impersonal("heads of requests to other systems, with numbers of events"),
        RETENTION: DeletedWith("webhook_deliveries"),
    },
)
