"""The catalogue of mutants: defects of the replaced system and violations of design rules.

The defects H-… and S-… are defined in docs/design/original-system.md.  Where two mechanisms ensure
the same property (a lock and a guarded write, a guarded write and a constraint), a mutant removes
both, because removing one has no observable effect.
"""

from __future__ import annotations

from chaos.mutation_tests.mutant import Edit, Mutant

ACCOUNT = "functions/account/handler.py"
LOGIN = "functions/login/handler.py"
CANCEL_ORDER = "functions/cancel_order/handler.py"
FULFIL_ORDERS = "functions/fulfil_orders/handler.py"
DEAD_LETTER = "functions/dead_letter/handler.py"
PLACE_ORDER = "functions/place_order/handler.py"
READ_ORDERS = "functions/read_orders/handler.py"
CHARGE = "shop/orders/charge.py"
DUE_JOBS = "shop/due_jobs.py"
IDEMPOTENCY = "shop/messaging/idempotency.py"
INBOX = "shop/messaging/inbox.py"
INVENTORY = "shop/inventory.py"
ONE_TIME_LINKS = "shop/one_time_links.py"
PRICE_LINES = "shop/primitives/price_lines.py"
COUPONS = "shop/coupons.py"
PRICE_SCHEDULES = "shop/price_schedules.py"
PERSONAL_DATA = "shop/schema/personal_data.py"
LINKS_SCHEMA = "shop/schema/migrations/versions/0024_used_links.py"
WEBHOOKS_SCHEMA = "shop/schema/migrations/versions/0029_webhooks.py"
MAILS = "shop/mails.py"
NOTIFY = "functions/notify/handler.py"
WEBHOOK_SENDING = "shop/webhook_sending.py"
DECIDE = "shop/orders/decide.py"
ORDERS = "shop/orders/orders.py"
OUTBOX = "shop/messaging/outbox.py"
SIMULATOR = "shop/adapters/payment_provider/simulator.py"
WEBHOOK = "shop/adapters/payment_provider/webhook.py"
REFUND = "shop/orders/refund.py"
HTTP_PIPELINE = "shop/runtime/http_pipeline.py"
EVENT_PIPELINE = "shop/runtime/event_pipeline.py"
EVENT_CONTEXT = "shop/runtime/event_context.py"
REQUEST_CONTEXT = "shop/runtime/request_context.py"
REQUEST_VALIDATION = "shop/runtime/request_validation.py"
IDEMPOTENCY_POLICY = "shop/runtime/idempotency_policy.py"
AUTHENTICATION = "shop/runtime/authentication.py"
APPLY = "shop/orders/apply.py"
GRANTS = "shop/schema/grants.py"
VIEWS = "shop/schema/views.py"
SCHEMA = "shop/schema/migrations/versions/0001_the_shop.py"
SETTLE = "functions/settle/handler.py"
SETTLEMENT = "shop/settlement.py"
SIGNATURES = "shop/adapters/signatures.py"
OPEN_DELIVERIES = "shop/runtime/open_deliveries.py"
PROVIDER_RECORDS = "shop/orders/provider_records.py"
PAYMENTS_SQL = "shop/orders/payments.py"
OPEN_PAYMENTS = "shop/schema/migrations/versions/0045_indexes_of_payment_actions.py"
LEDGER_KEYS = "shop/schema/migrations/versions/0032_partitioned_ledger.py"
SWEEP_SPEC = "functions/sweep/spec.py"


def _without(file: str, text: str) -> Edit:
    return Edit(file, text, "")


# ---------------------------------------------------------------- edits of single constraints

NO_STOCK_CHECKS = (
    _without(SCHEMA, 'sa.CheckConstraint("on_hand >= 0", name="on_hand_not_negative"),'),
    _without(SCHEMA, 'sa.CheckConstraint("reserved <= on_hand", name="reserved_le_on_hand"),'),
    _without(SCHEMA, 'sa.CheckConstraint("reserved >= 0", name="reserved_not_negative"),'),
)
NO_SINGLE_OPEN_PAYMENT = Edit(
    OPEN_PAYMENTS,
    '_create_index("one_open_payment", "order_id", OPEN, unique=True)',
    '_create_index("one_open_payment", "order_id", OPEN, unique=False)',
)
NO_UNIQUE_POSTING = _without(
    LEDGER_KEYS, "  constraint one_posting_per_source unique (kind, source_id),\n"
)
NO_ROW_SECURITY = Edit(
    GRANTS,
    "own = \"user_id = nullif(current_setting('shop.user_id', true), '')::bigint\"",
    'own = "true"',
)
LATE_CAPTURE_IGNORED = Edit(
    DECIDE,
    "if payment is None or payment.status == PaymentStatus.CAPTURED:",
    "if payment is None or payment.status not in OPEN_PAYMENT:",
)

# ---------------------------------------------------------------- idempotency keys

_KEYS = (
    Mutant(
        "M-01",
        "H-01",
        "idempotency keys are ignored, so a retry places a second order",
        (
            Edit(
                REQUEST_VALIDATION,
                "return key if operation.route.idempotent else None",
                "return None",
            ),
        ),
        ("Q-11", "Q-12"),
    ),
    Mutant(
        "M-02",
        "H-01",
        "a key is looked up and then inserted without a unique constraint: ten concurrent requests",
        (
            Edit(
                IDEMPOTENCY,
                """values (%(user_id)s, %(scope)s, %(key)s, %(fingerprint)s, 'STARTED')
on conflict do nothing
""",
                """select %(user_id)s::bigint, %(scope)s::text, %(key)s::text,
  %(fingerprint)s::bytea, 'STARTED'
where not exists (select from shop.idempotency
  where user_id = %(user_id)s and scope = %(scope)s and key = %(key)s)
""",
            ),
            _without(ORDERS, "on conflict (user_id, idem_scope, idem_key) do nothing"),
            _without(SCHEMA, 'sa.PrimaryKeyConstraint("user_id", "scope", "key"),'),
            _without(
                SCHEMA,
                'sa.UniqueConstraint("user_id", "idem_scope", "idem_key", '
                'name="one_order_per_key"),',
            ),
        ),
        ("I-18", "Q-11"),
    ),
    Mutant(
        "M-03",
        "H-01",
        "the response is stored after the commit, so a crash in between leaves a key without one",
        (
            Edit(
                HTTP_PIPELINE,
                "session.commit(*closing)",
                """session.commit()
            if closing:
                context.services.database.run_now(*closing)""",
            ),
        ),
        ("Q-08", "replays"),
    ),
    Mutant(
        "M-04",
        "H-01",
        "a key stores the body but not the status: a repeated request gets 200",
        (Edit(IDEMPOTENCY_POLICY, "status=response.status,", "status=200,"),),
        ("Q-11", "replays"),
    ),
    Mutant(
        "M-05",
        "H-01",
        "a key that was used for another request gets the response of that request",
        (
            Edit(
                IDEMPOTENCY_POLICY,
                "if bytes(row.fingerprint) != self._fingerprint:",
                "if not bytes(row.fingerprint):",
            ),
        ),
        ("probes", "Q-11"),
    ),
    Mutant(
        "M-06",
        "S-03",
        "keys are not bound to a user: a guessed key gets another customer's response",
        (
            Edit(
                IDEMPOTENCY_POLICY,
                "self._user_id = request.caller.user_id if request.caller else ANONYMOUS",
                "self._user_id = ANONYMOUS",
            ),
        ),
        ("I-18",),
    ),
    Mutant(
        "M-07",
        "H-02",
        "a client error is stored without undoing earlier writes: the rejected order remains",
        (
            _without(PLACE_ORDER, "    tx.rollback_to_savepoint()\n"),
            Edit(
                HTTP_PIPELINE,
                "closing = (db.ROLLBACK_TO_CLAIM(),)",
                "closing = ()",
            ),
        ),
        ("I-06", "Q-12"),
    ),
)

# ---------------------------------------------------------------- stock

_STOCK = (
    Mutant(
        "M-08",
        "H-02",
        "cancelling twice releases the stock twice",
        (
            Edit(
                DECIDE,
                'return (Reject("NOT_CANCELLABLE", "the order is cancelled already"),)',
                "return (ChangeReservations(ReservationStatus.HELD, ReservationStatus.RELEASED),)",
            ),
            Edit(
                INVENTORY,
                """set status = 'RELEASED'
  where order_id = %(order_id)s::uuid and status = 'HELD'""",
                """set status = 'RELEASED'
  where order_id = %(order_id)s::uuid""",
            ),
            *NO_STOCK_CHECKS,
        ),
        ("I-02", "I-05", "I-16"),
    ),
    Mutant(
        "M-09",
        "H-02",
        "orders are not locked and guarded writes may touch no row: two concurrent cancellations",
        (
            Edit(
                ORDERS,
                "where order_id = %(order_id)s::uuid\nfor update\n",
                "where order_id = %(order_id)s::uuid\n",
            ),
            Edit(
                APPLY,
                'assert rows, f"a guarded statement returned no row: {statement}"',
                "_ = (rows, statement)",
            ),
        ),
        ("I-16", "I-17"),
    ),
    Mutant(
        "M-10",
        "H-03",
        "lost update: stock is read, compared and written as an absolute value (oversell)",
        (
            Edit(
                INVENTORY,
                """set reserved = s.reserved + a.qty
  from requested a join locked using (product_id)
  where s.product_id = a.product_id and s.on_hand - s.reserved >= a.qty""",
                """set reserved = seen.reserved + a.qty
  from requested a join (select product_id, on_hand, reserved from shop.stock) seen
    using (product_id)
  where s.product_id = a.product_id and seen.on_hand - seen.reserved >= a.qty""",
            ),
            *NO_STOCK_CHECKS,
        ),
        ("I-02", "I-04"),
    ),
    Mutant(
        "M-11",
        "H-03",
        "stock is reserved without checking that enough is available",
        (_without(INVENTORY, " and s.on_hand - s.reserved >= a.qty"), *NO_STOCK_CHECKS),
        ("I-01", "I-04"),
    ),
    Mutant(
        "M-12",
        "H-04",
        "stock leaks: releasing a reservation does not decrease the reserved count",
        (
            Edit(
                INVENTORY,
                "update shop.stock s set reserved = s.reserved - m.qty",
                "update shop.stock s set reserved = s.reserved",
            ),
        ),
        ("I-02", "Q-03"),
    ),
    Mutant(
        "M-13",
        "H-04",
        "a sale writes the stock move but does not decrease the stock on hand",
        (
            Edit(
                INVENTORY,
                "set on_hand = s.on_hand - m.qty, reserved = s.reserved - m.qty",
                "set reserved = s.reserved - m.qty",
            ),
        ),
        ("I-03",),
    ),
    Mutant(
        "M-14",
        "H-12",
        "cancelling an order does not release its stock",
        (
            Edit(
                DECIDE,
                "ChangeReservations(ReservationStatus.HELD, ReservationStatus.RELEASED),\n"
                "            ChangeOrderStatus(OrderStatus.PENDING, _cancel_target(state), message",
                "ChangeOrderStatus(OrderStatus.PENDING, _cancel_target(state), message",
            ),
        ),
        ("I-06", "Q-03"),
    ),
)

# ---------------------------------------------------------------- payments

_PAYMENTS = (
    Mutant(
        "M-15",
        "H-05",
        "the provider is called inside the transaction: a crash leaves a charge without a payment",
        (
            Edit(
                EVENT_PIPELINE,
                "                call = handler.prepare(session.tx, handler.subject(event))",
                """                call = handler.prepare(session.tx, handler.subject(event))
                if call is not None:
                    context.execute_and_record(handler, call, session.tx)""",
            ),
            _without(EVENT_PIPELINE, "    context.execute_and_record(handler, call)\n"),
            Edit(
                EVENT_CONTEXT,
                """    def execute_and_record(
        self, two_phase_call: TwoPhaseCall[System, Subject, Call, Outcome], call: Call
    ) -> Outcome:""",
                """    def execute_and_record(
        self, two_phase_call: TwoPhaseCall[System, Subject, Call, Outcome], call: Call, inside=None
    ) -> Outcome:""",
            ),
            Edit(
                EVENT_CONTEXT,
                """        with self.transaction(before_commit=Failpoint.OUTCOME_WRITTEN) as tx:
            two_phase_call.record(tx, call, outcome)""",
                """        if inside is not None:
            two_phase_call.record(inside, call, outcome)
            return outcome
        with self.transaction(before_commit=Failpoint.OUTCOME_WRITTEN) as tx:
            two_phase_call.record(tx, call, outcome)""",
            ),
        ),
        ("I-11", "Q-06"),
    ),
    Mutant(
        "M-16",
        "H-07",
        "a timeout is treated as a decline, and the later capture is ignored",
        (
            Edit(
                CHARGE,
                "return messages.PaymentUnknown(payment_id)",
                "return messages.Declined(payment_id)",
            ),
            LATE_CAPTURE_IGNORED,
        ),
        ("Q-06",),
    ),
    Mutant(
        "M-17",
        "404 treated as final",
        "a 404 is treated as final, and the charge that arrives later is ignored",
        (
            Edit(
                SIMULATOR,
                "    if response.status != 200 or kind not in _OUTCOMES:",
                """    if response.status == 404:
        return Outcome("voided")
    if response.status != 200 or kind not in _OUTCOMES:""",
            ),
            LATE_CAPTURE_IGNORED,
        ),
        ("Q-06",),
    ),
    Mutant(
        "M-18",
        "capture ignored after cancellation",
        "a capture is ignored after the customer has cancelled",
        (
            Edit(
                DECIDE,
                "if payment is None or payment.status == PaymentStatus.CAPTURED:",
                "if payment is None or payment.status == PaymentStatus.CAPTURED or "
                "state.order.status in CLOSED_ORDER:",
            ),
        ),
        ("Q-02", "Q-06", "quiescence"),
    ),
    Mutant(
        "M-19",
        "late capture not refunded",
        "a capture after the end of the order is posted and not refunded",
        (
            Edit(
                DECIDE,
                "return (change, post, OpenRefund("
                'payment.payment_id, payment.amount_minor, "LATE_CAPTURE"))',
                "return (change, post)",
            ),
        ),
        ("I-09", "Q-01", "Q-04", "quiescence"),
    ),
    Mutant(
        "M-20",
        "new key after a timeout",
        "a payment is retried under another idempotency key: the provider charges twice",
        (
            Edit(
                CHARGE,
                "return _pending_charge("
                "found.order_id, attempt, decide.provider_call(rows.state, payment))",
                """pending = _pending_charge(
        found.order_id, attempt, decide.provider_call(rows.state, payment)
    )
    call = replace(pending.call, key=pending.call.key + ":again")
    return replace(pending, call=call)""",
            ),
            Edit(
                CHARGE,
                "from dataclasses import field\n",
                "from dataclasses import field, replace\n",
            ),
        ),
        ("I-11", "Q-06"),
    ),
    Mutant(
        "M-21",
        "two open payments",
        "an order may have two open payments, and both are charged",
        (
            Edit(
                DECIDE,
                """        order.status != OrderStatus.PENDING
        or not order.charge_requested
        or state.open_payment
        or state.settling_payment
""",
                "        order.status != OrderStatus.PENDING\n",
            ),
            _without(APPLY, "    batch.add(orders.charge_started(batch.order_id))\n"),
            NO_SINGLE_OPEN_PAYMENT,
        ),
        ("I-09",),
    ),
    Mutant(
        "M-22",
        "H-07",
        "the amount in the provider's response is posted without comparing it",
        (
            Edit(
                SIMULATOR,
                'if amount_in(body.get("amount_minor")) != amount_minor:',
                'if amount_in(body.get("amount_minor")) is None:',
            ),
            Edit(
                DECIDE,
                "if (message.amount_minor, message.currency) != "
                "(payment.amount_minor, payment.currency):",
                "if message.currency != payment.currency:",
            ),
            Edit(
                DECIDE,
                "PostingKind.CAPTURE, payment.payment_id, payment.amount_minor, payment.currency",
                "PostingKind.CAPTURE, payment.payment_id, message.amount_minor, payment.currency",
            ),
        ),
        ("I-13",),
    ),
    Mutant(
        "M-23",
        "no void after cancellation",
        "the open payment of a cancelled order is neither voided nor resolved",
        (
            Edit(
                CHARGE,
                "    tx.execute(payments.postpone(payment_id))\n",
                """    if decide.provider_call(rows.state, payment) == "cancel":
        return None
    tx.execute(payments.postpone(payment_id))
""",
            ),
        ),
        ("Q-01", "Q-02", "quiescence"),
    ),
    Mutant(
        "M-24",
        "H-07",
        "unknown payments stay unknown: no timer queries the provider again",
        (
            Edit(
                DUE_JOBS,
                "context.run(charge.RESOLVE, UUID(subject))",
                'context.log_postponed(subject, Unavailable("never"))',
            ),
        ),
        ("Q-01", "Q-02", "quiescence"),
    ),
    Mutant(
        "M-25",
        "H-14",
        "the total is too small an integer (8 bits instead of the replaced system's 32)",
        (
            Edit(
                ORDERS,
                "total_minor=total(price_lines),",
                "total_minor=max(1, total(price_lines) & 255),",
            ),
        ),
        ("I-07",),
    ),
    Mutant(
        "M-26",
        "H-17",
        "the total uses a stale cached price: that of the first purchase of the product",
        (
            Edit(
                ORDERS,
                "'PENDING', %(total_minor)s::bigint,",
                """'PENDING', (select sum(a.qty * coalesce((select l.unit_price_minor
      from shop.order_lines l where l.product_id = a.id order by l.order_id limit 1), a.price))
      from unnest(%(product_ids)s::bigint[], %(quantities)s::int[], %(unit_prices)s::bigint[])
        as a(id, qty, price)),""",
            ),
        ),
        ("I-07",),
    ),
)

# ---------------------------------------------------------------- refunds, ledger and settlement

_REFUNDS = (
    Mutant(
        "M-27",
        "new key per refund attempt",
        "each attempt of a refund uses another idempotency key: it is refunded twice",
        (
            Edit(
                REFUND,
                "key=refund.provider_key,",
                'key=refund.provider_key + (f":{refund.tries}" if refund.tries else ""),',
            ),
        ),
        ("Q-06",),
    ),
    Mutant(
        "M-28",
        "H-12",
        "cancelling a paid order opens no refund",
        (_without(DECIDE, "        *refund,\n"),),
        ("Q-01", "Q-04", "quiescence"),
    ),
    Mutant(
        "M-29",
        "H-07",
        "a refund that timed out is treated as successful",
        (
            Edit(
                REFUND,
                "return messages.RefundUnknown(refund_id)",
                "return messages.Refunded(refund_id)",
            ),
        ),
        ("Q-06",),
    ),
    Mutant(
        "M-30",
        "H-11",
        "a refund is attempted once and never retried",
        (
            Edit(
                DUE_JOBS,
                "context.run(refund.REFUND, UUID(subject))",
                'context.log_postponed(subject, Unavailable("never"))',
            ),
        ),
        ("Q-01", "Q-02", "quiescence"),
    ),
    Mutant(
        "M-31",
        "H-10",
        "every webhook of one capture is posted: postings have no unique constraint",
        (
            Edit(
                DECIDE,
                """    if payment is None or payment.status == PaymentStatus.CAPTURED:
        return NOTHING
""",
                """    if payment is None:
        return NOTHING
    if payment.status == PaymentStatus.CAPTURED:
        amount = (payment.amount_minor, payment.currency)
        return (PostToLedger(PostingKind.CAPTURE, payment.payment_id, *amount),)
""",
            ),
            NO_UNIQUE_POSTING,
        ),
        ("I-13",),
    ),
    Mutant(
        "M-32",
        "H-09",
        "a refund has no posting, so revenue is overstated",
        (
            _without(
                DECIDE,
                "        PostToLedger(POSTED_AS[refund.means], refund.refund_id, "
                "refund.amount_minor, currency),\n",
            ),
        ),
        ("I-13",),
    ),
    Mutant(
        "M-33",
        "H-16",
        "a business day is settled before it has ended and its transactions are committed",
        (
            Edit(
                VIEWS,
                "((d.day + 1)::timestamp at time zone z.name)\n      + interval '2 minutes'",
                "(d.day::timestamp at time zone z.name)",
            ),
            _without(
                SETTLEMENT,
                "  and l.posted_at < date_trunc('day', now() at time zone %(time_zone)s) "
                "at time zone %(time_zone)s\n",
            ),
            Edit(SETTLE, "if is_over is None or not is_over.over:", "if is_over is None:"),
        ),
        ("Q-10",),
    ),
)

# ---------------------------------------------------------------- events

_EVENTS = (
    Mutant(
        "M-34",
        "H-10",
        "no inbox: consumers do not deduplicate events",
        (
            Edit(
                INBOX,
                """insert into shop.inbox (consumer, source, event_id, outcome)
values (%(consumer)s, %(source)s, %(event_id)s, 'taken')
on conflict do nothing
returning event_id
""",
                """select %(event_id)s::text as event_id, %(consumer)s::text, %(source)s::text
""",
            ),
        ),
        ("Q-07", "quiescence"),
    ),
    Mutant(
        "M-35",
        "H-08",
        "no outbox: an event exists only in the memory of the process that emits it",
        (
            Edit(
                OUTBOX,
                "as e(event_id, type, subject, order_id, data)",
                "as e(event_id, type, subject, order_id, data)\nwhere false",
            ),
        ),
        ("I-17", "Q-07"),
    ),
    Mutant(
        "M-36",
        "H-08",
        "an event is published before its transaction is committed",
        (
            Edit(
                HTTP_PIPELINE,
                "session.commit(*closing)",
                "context.emitted.extend(session.tx.announced)\n"
                "            context.publish()\n"
                "            session.commit(*closing)",
            ),
        ),
        ("Q-09", "I-20"),
    ),
    Mutant(
        "M-37",
        "H-08",
        "an event is marked as done when the broker has accepted it",
        (Edit(OUTBOX, "then done_at else now() end", "then now() else now() end"),),
        ("Q-07",),
    ),
    Mutant(
        "M-38",
        "H-11",
        "no relay: an event that was not published immediately never is",
        (
            Edit(
                DUE_JOBS,
                "context.relay([_as_outbox_row(row) for row in due])",
                'context.log_postponed(f"{len(due)} events", Unavailable("never"))',
            ),
        ),
        ("Q-07", "quiescence"),
    ),
    Mutant(
        "M-39",
        "S-12",
        "events are accepted without a signature",
        (_without(EVENT_PIPELINE, "        _authenticate(services, event)\n"),),
        ("Q-09", "I-20"),
    ),
    Mutant(
        "M-40",
        "S-12",
        "the signature of an event is required but not verified",
        (_without(SIGNATURES, "        self._check_signature(kid, key, signature, event)\n"),),
        ("Q-09", "I-20"),
    ),
    Mutant(
        "M-41",
        "S-12",
        "any key may sign for any source, and any source may emit any event",
        (
            Edit(SIGNATURES, "if not key.may_sign_for(event.source):", "if not event.source:"),
            Edit(EVENT_PIPELINE, "if name not in emits:", "if not name:"),
        ),
        ("Q-09",),
    ),
    Mutant(
        "M-42",
        "H-10",
        "an event that cannot be decoded is dropped silently",
        (
            Edit(
                EVENT_PIPELINE,
                'raise ClientError(error.status, "BAD_EVENT", error.reason) from error',
                "return HttpResponse(NO_CONTENT)",
            ),
        ),
        ("Q-09",),
    ),
    Mutant(
        "M-43",
        "H-10",
        "dead letters raise an operator alert and are not stored",
        (_without(DEAD_LETTER, "        dead_letters.store(letter),\n"),),
        ("Q-09",),
    ),
)

# ---------------------------------------------------------------- authentication and authorization

_ACCESS = (
    Mutant(
        "M-44",
        "S-01",
        "a request with X-User-Id is authenticated as that user, without a token",
        (
            Edit(
                AUTHENTICATION,
                '    caller = _verify(services, http_request.headers.get("authorization"))\n',
                """    claimed = http_request.headers.get("x-user-id", "")
    if claimed.isdigit():
        from uuid import UUID
        from shop.primitives.messages import Caller

        return Caller(int(claimed), needed, UUID(int=0))
    caller = _verify(services, http_request.headers.get("authorization"))
""",
            ),
            Edit(
                REQUEST_CONTEXT,
                "if self._caller is not None and checks_session:",
                "if self._caller is not None and self._caller.session_id.int:",
            ),
        ),
        ("probes",),
    ),
    Mutant(
        "M-45",
        "S-03",
        "any customer can read any order",
        (
            Edit(
                READ_ORDERS,
                "if row is None or (row.user_id != request.user_id and not is_support):",
                "if row is None:",
            ),
            NO_ROW_SECURITY,
        ),
        ("probes",),
    ),
    Mutant(
        "M-46",
        "S-03",
        "any customer can cancel any order",
        (
            _without(
                APPLY,
                '    if rows.order.user_id != user_id:\n        raise not_found("the order")\n',
            ),
            NO_ROW_SECURITY,
        ),
        ("probes",),
    ),
    Mutant(
        "M-47",
        "S-05",
        "roles are not checked: customers can use staff, support and finance operations",
        (
            Edit(
                AUTHENTICATION,
                'if needed != "customer" and caller.role not in permitted:',
                'if needed == "none":',
            ),
        ),
        ("probes",),
    ),
    Mutant(
        "M-48",
        "S-04",
        "the signature of a payment webhook is not verified",
        (
            Edit(
                WEBHOOK,
                "if not any([hmac.compare_digest(expected, given.encode()) "
                "for given in signatures]):",
                "if not expected:",
            ),
        ),
        ("probes", "Q-06"),
    ),
)

# ---------------------------------------------------------------- scaling to zero

_AT_ZERO = (
    Mutant(
        "M-49",
        "ADR 33",
        "the thread of a delivery is never free again, so a process publishes 32 events at most",
        (_without(OPEN_DELIVERIES, "        self._slots.release()\n"),),
        ("Q-07", "quiescence"),
    ),
    Mutant(
        "M-50",
        "ADR 34",
        "a due reconciliation starts no tick",
        (_without(SWEEP_SPEC, '                "reconcile",\n'),),
        ("quiescence",),
    ),
)

# ---------------------------------------------------------------- the provider's own transactions

_PROVIDER = (
    Mutant(
        "M-51",
        "rule 4",
        "a refund that was made in the provider's dashboard is not booked",
        (
            Edit(
                PROVIDER_RECORDS,
                "    if payment is None:\n        return None\n    is_early",
                '    if payment is None or entry.kind == "refund":\n        return None\n'
                "    is_early",
            ),
        ),
        ("Q-06",),
    ),
    Mutant(
        "M-52",
        "rule 4",
        "reconciliation reads the provider's list and applies nothing: lost webhooks stay unknown",
        (Edit(DUE_JOBS, "for entry in _unrecorded(context, page.entries):", "for entry in ():"),),
        ("Q-06",),
    ),
)

# ---------------------------------------------------------------- audit log

_AUDIT = (
    Mutant(
        "M-53",
        "no audit entry",
        "a refund of an operator has no entry in the audit log",
        (Edit(CANCEL_ORDER, "request.user_id, audit=entry)", "request.user_id)"),),
        ("I-26",),
    ),
)

# ---------------------------------------------------------------- one-time links

_LINKS = (
    Mutant(
        "M-54",
        "ADR 44",
        "a password that is reset by a link leaves the sessions of its account open",
        (_without(ACCOUNT, "            accounts.end_sessions(account.user_id),\n"),),
        ("I-27", "probes"),
    ),
    Mutant(
        "M-55",
        "ADR 44",
        "a link that was used is still valid",
        (
            _without(ONE_TIME_LINKS, "ended_at = now(), "),
            Edit(LINKS_SCHEMA, "uses in (0, 1)", "uses >= 0"),
        ),
        ("I-27", "probes"),
    ),
)

# ---------------------------------------------------------------- closed accounts

_PRIVACY = (
    Mutant(
        "M-56",
        "ADR 46",
        "a closed account keeps what it holds of the person",
        (_without(PERSONAL_DATA, "    perform shop.erase_account(account);\n"),),
        ("I-28",),
    ),
)

# ---------------------------------------------------------------- webhooks

_WEBHOOKS = (
    Mutant(
        "M-57",
        "ADR 47",
        "an event is delivered only to the webhooks whose first event type it has",
        (Edit(WEBHOOKS_SCHEMA, "e.type = any(w.event_types)", "e.type = w.event_types[1]"),),
        ("I-29", "webhooks"),
    ),
    Mutant(
        "M-58",
        "ADR 47",
        "a delivery counts as accepted whatever its receiver responds",
        (
            Edit(
                WEBHOOK_SENDING,
                "    if reply.is_success:\n        state",
                "    if reply.status is not None:\n        state",
            ),
        ),
        ("I-29", "webhooks"),
    ),
)

# ---------------------------------------------------------------- mails

_MAILS = (
    Mutant(
        "M-59",
        "ADR 48",
        "a mail is not stored while the mail server is not reachable",
        (
            Edit(
                MAILS,
                "  from outage\n  on conflict",
                "  from outage where not is_on\n  on conflict",
            ),
        ),
        ("I-30",),
    ),
    Mutant(
        "M-60",
        "ADR 48",
        "a mail counts as sent before the mail server was called",
        (
            Edit(
                NOTIFY,
                "    return None if stored is None else _with_facts(tx, stored)",
                "    tx.execute(mails.sent(UUID(event.id)))\n"
                "    return None if stored is None else _with_facts(tx, stored)",
            ),
        ),
        ("mails",),
    ),
)

# ---------------------------------------------------------------- products and orders of staff

_BACK_OFFICE = (
    Mutant(
        "M-61",
        "H-03",
        "staff take away stock that orders have reserved",
        (
            _without(INVENTORY, " and on_hand + %(qty)s::int >= reserved"),
            *NO_STOCK_CHECKS,
        ),
        ("I-01", "I-04"),
    ),
    Mutant(
        "M-62",
        "no audit entry",
        "a cancellation by an operator has no entry in the audit log",
        (Edit(CANCEL_ORDER, "decided, audit=entry)", "decided)"),),
        ("I-26",),
    ),
    Mutant(
        "M-63",
        "ADR 51",
        "a price schedule that is over leaves its price",
        (
            Edit(
                PRICE_SCHEDULES,
                "PriceScheduleState.ENDED))\n"
                "        _set_price(tx, product, _price_after(product, due), None)",
                "PriceScheduleState.ENDED))",
            ),
        ),
        ("I-32",),
    ),
)

_SHIPMENTS = (
    Mutant(
        "M-64",
        "goods returned twice",
        "goods that were sent are cancelled, and in the stock again",
        (
            Edit(
                DECIDE,
                "    if state.is_sent:\n        return (Reject(",
                "    if False:\n        return (Reject(",
            ),
        ),
        ("I-34",),
    ),
    Mutant(
        "M-65",
        "shipped twice",
        "a line is packed again, whatever of it is in another shipment",
        (Edit(DECIDE, "line.qty > state.unassigned(line.product_id)", "line.qty < 1"),),
        ("I-33",),
    ),
    Mutant(
        "M-66",
        "no audit entry",
        "packing an order has no entry in the audit log",
        (
            Edit(
                FULFIL_ORDERS,
                "decided, audit=entry)\n    location",
                "decided)\n    location",
            ),
        ),
        ("I-26",),
    ),
)

# ---------------------------------------------------------------- payments with an action

_ACTIONS = (
    Mutant(
        "M-67",
        "ADR 56",
        "a payment that waits for its customer is not due at its deadline",
        (
            Edit(
                PAYMENTS_SQL,
                "  next_try_at = coalesce(now() + make_interval(secs => %(seconds)s), act_until)",
                "  next_try_at = 'infinity'",
            ),
        ),
        ("I-36",),
    ),
    Mutant(
        "M-68",
        "ADR 56",
        "a payment whose customer may act no more is confirmed again instead of voided",
        (
            Edit(
                DECIDE,
                "is_in_time = payment.may_act if requires_action else payment.may_charge",
                "is_in_time = requires_action or payment.may_charge",
            ),
        ),
        ("Q-01", "Q-02"),
    ),
    Mutant(
        "M-69",
        "ADR 56",
        "what a customer paid after acting does not pay for the order",
        (
            Edit(
                DECIDE,
                "    pays = payment.status in OPEN_PAYMENT and state.order",
                "    pays = payment.status in OPEN_PAYMENT[:2] and state.order",
            ),
        ),
        ("I-10",),
    ),
)

# ---------------------------------------------------------------- second factors

_FACTORS = (
    Mutant(
        "M-70",
        "ADR 55",
        "log-in does not ask for the code of a second factor",
        (_without(LOGIN, "    _check_second_factor(request, context, attempt, account, typed)\n"),),
        ("I-35", "probes"),
    ),
)

# ---------------------------------------------------------------- goods that come back

_RETURNS = (
    Mutant(
        "M-71",
        "returned twice",
        "units that were returned are returned again",
        (Edit(DECIDE, " - state.returned(line.product_id)", ""),),
        ("I-37",),
    ),
    Mutant(
        "M-72",
        "money kept",
        "a return that is received gives no money back",
        (Edit(DECIDE, "if total else NOTHING", "if False else NOTHING"),),
        ("I-38",),
    ),
    Mutant(
        "M-73",
        "H-02",
        "a cancelled order returns units again that were put back before",
        (Edit(INVENTORY, "qty - returned_qty as qty", "qty"),),
        ("I-05",),
    ),
)

# ---------------------------------------------------------------- price lines

_PRICES = (
    Mutant(
        "M-74",
        "ADR 59",
        "the VAT part of a line is computed as if its amount did not contain it",
        (
            Edit(
                PRICE_LINES,
                "abs(amount_minor) * basis_points, WHOLE + basis_points)",
                "abs(amount_minor) * basis_points, WHOLE)",
            ),
        ),
        ("I-40",),
    ),
)

_COUPONS = (
    Mutant(
        "M-75",
        "ADR 61",
        "an order that is not paid keeps its coupons",
        (
            Edit(
                APPLY,
                "if change.to_status == ReservationStatus.RELEASED:",
                "if change.to_status == ReservationStatus.RETURNED:",
            ),
        ),
        ("I-42",),
    ),
    Mutant(
        "M-76",
        "ADR 61",
        "how often a coupon may be used is read before, but its use is not counted",
        (Edit(COUPONS, "set uses = c.uses + 1", "set uses = c.uses"),),
        ("I-41",),
    ),
    Mutant(
        "M-77",
        "ADR 61",
        "a customer uses a coupon as often as all customers may",
        (
            Edit(COUPONS, "when uses_per_customer_max <= (", "when uses_max <= ("),
            Edit(
                COUPONS,
                "(c.uses_per_customer_max is null or c.uses_per_customer_max > (",
                "(c.uses_max is null or c.uses_max > (",
            ),
        ),
        ("I-41",),
    ),
    Mutant(
        "M-78",
        "ADR 61",
        "units that go back give back their price, not what was paid for them",
        (
            Edit(
                ORDERS,
                "l.qty * l.unit_price_minor + (select coalesce(sum(d.amount_minor), 0)",
                "l.qty * l.unit_price_minor + 0 * (select coalesce(sum(d.amount_minor), 0)",
            ),
        ),
        ("I-38",),
    ),
)

_FEES = (
    Mutant(
        "M-79",
        "ADR 63",
        "shipping is free from an amount before discounts",
        (
            Edit(
                PLACE_ORDER,
                "goods_minor=goods_minor - discount_minor,",
                "goods_minor=goods_minor,",
            ),
        ),
        ("I-45",),
    ),
    Mutant(
        "M-80",
        "ADR 63",
        "shipping costs its fee also where it is free",
        (
            Edit(
                PRICE_LINES,
                "(0 if is_free else rule.amount_minor)",
                "(is_free * 0 + rule.amount_minor)",
            ),
        ),
        ("I-45",),
    ),
)

MUTANTS = (
    *_KEYS,
    *_STOCK,
    *_PAYMENTS,
    *_REFUNDS,
    *_EVENTS,
    *_ACCESS,
    *_AT_ZERO,
    *_PROVIDER,
    *_AUDIT,
    *_LINKS,
    *_PRIVACY,
    *_WEBHOOKS,
    *_MAILS,
    *_BACK_OFFICE,
    *_SHIPMENTS,
    *_ACTIONS,
    *_FACTORS,
    *_RETURNS,
    *_PRICES,
    *_COUPONS,
    *_FEES,
)

# Defects that a fault run cannot detect or that cannot exist in this shop, with the reason.
NOT_APPLICABLE: dict[str, str] = {
    "H-01b": "an annotation without effect; retries are timers here, see M-24, M-30 and M-38",
    "H-06": "a cart becomes one order, which is charged after its transaction; see M-15",
    "H-13": "placing an order does not wait for the payment, so no route returns 402",
    "H-15": "monthly settlements are a query over the days; none is stored",
    "H-18": "response sizes: tests/functions/test_list_products.py",
    "H-19": "health probes: tests/flows/test_function_processes.py and the manifests' tests",
    "H-20": "statuses of client errors: tests/functions/test_register.py and test_login.py",
    "H-21": "about the tests of the replaced system; these mutation tests verify ours",
    "S-02": "the same header as S-01, bypassing the gateway: M-44 is inside each function",
    "S-06": "forged tokens have a test corpus: tests/security/test_token_corpus.py",
    "S-07": "rate limits: tests/security/test_rate_limit.py",
    "S-08": "passwords and guessing: tests/functions/test_login.py and test_register.py",
    "S-09": "a deployment's credentials: tests/tools/local_platform/test_secrets.py; manifests",
    "S-10": "no such console exists; the documents carry no third party's script",
    "S-11": "error messages: tests/security/test_bad_input.py",
    "S-13": "pod security: the manifests' tests",
    "S-14": "image builds: the workflows",
    "S-15": "ingress routing: tests/flows/test_envoy_edge.py",
    "decline of another attempt applied": "needs a decline after the capture of a second attempt; "
    "the model test detects it (tests/unit/test_decide_interleavings.py)",
}
