"""The holes of the original, and the mutants of the design's model, put back into our code.

Where two things keep one promise (a lock and a guard, a guard and a constraint), a mutant takes
both away: one of them alone changes nothing that anybody could see.  So does a shop whose inbox
merely takes every event for new: the rows' states make it harmless, and it is no mutant here.
"""

from __future__ import annotations

from chaos.mutation_tests.mutant import Edit, Mutant

DEAD_LETTER = "functions/dead_letter/handler.py"
PLACE_ORDER = "functions/place_order/handler.py"
READ_ORDERS = "functions/read_orders/handler.py"
CHARGING = "shop/orders/charge.py"
DUE = "shop/due_jobs.py"
IDEMPOTENCY = "shop/messaging/idempotency.py"
INBOX = "shop/messaging/inbox.py"
INVENTORY = "shop/inventory.py"
LIFECYCLE = "shop/orders/decide.py"
ORDERS = "shop/orders/orders.py"
OUTBOX = "shop/messaging/outbox.py"
SANDBOX = "shop/adapters/payment_provider/simulator.py"
WEBHOOK = "shop/adapters/payment_provider/webhook.py"
REFUNDING = "shop/orders/refund.py"
HTTP_PIPELINE = "shop/runtime/http_pipeline.py"
EVENT_PIPELINE = "shop/runtime/event_pipeline.py"
EVENT_CONTEXT = "shop/runtime/event_context.py"
REQUEST_CONTEXT = "shop/runtime/request_context.py"
REQUEST_VALIDATION = "shop/runtime/request_validation.py"
IDEMPOTENCY_POLICY = "shop/runtime/idempotency_policy.py"
AUTHENTICATION = "shop/runtime/authentication.py"
SAGA = "shop/orders/apply.py"
GRANTS = "shop/schema/grants.py"
PROMISES = "shop/schema/triggers_and_views.py"
SCHEMA = "shop/schema/migrations/versions/0001_the_shop.py"
SETTLE = "functions/settle/handler.py"
SETTLEMENT = "shop/settlement.py"
SIGNATURES = "shop/adapters/signatures.py"


def _without(file: str, text: str) -> Edit:
    return Edit(file, text, "")


# ---------------------------------------------------------------- one constraint each

NO_STOCK_CHECKS = (
    _without(SCHEMA, 'sa.CheckConstraint("on_hand >= 0", name="on_hand_not_negative"),'),
    _without(SCHEMA, 'sa.CheckConstraint("reserved <= on_hand", name="reserved_le_on_hand"),'),
    _without(SCHEMA, 'sa.CheckConstraint("reserved >= 0", name="reserved_not_negative"),'),
)
NO_ONE_LIVE_PAYMENT = Edit(
    SCHEMA,
    """"one_live_payment",
        "payments",
        ["order_id"],
        unique=True,""",
    """"one_live_payment",
        "payments",
        ["order_id"],
        unique=False,""",
)
NO_ONE_POSTING = _without(
    SCHEMA, 'sa.UniqueConstraint("kind", "source_id", name="one_posting_per_source"),'
)
NO_ROW_SECURITY = Edit(
    GRANTS,
    "own = \"user_id = nullif(current_setting('shop.user_id', true), '')::bigint\"",
    'own = "true"',
)
LATE_CAPTURE_IGNORED = Edit(
    LIFECYCLE,
    "if payment is None or payment.status == PaymentStatus.CAPTURED:",
    "if payment is None or payment.status not in OPEN_PAYMENT:",
)

# ---------------------------------------------------------------- one request, one effect

_KEYS = (
    Mutant(
        "M-01",
        "H-01",
        "no idempotency: a key is read and forgotten, so a retry is a second order",
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
        "a key is looked up, then written: nothing unique is behind it, so ten at once are ten",
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
        "the answer is stored after the commit: a crash between leaves a key without one",
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
        "a key remembers the body, not the status: a repeated request is answered 200",
        (Edit(IDEMPOTENCY_POLICY, "status=response.status,", "status=200,"),),
        ("Q-11", "replays"),
    ),
    Mutant(
        "M-05",
        "H-01",
        "a key used for another request is answered with the first one's answer",
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
        "keys belong to nobody: whoever guesses one gets another customer's answer",
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
        "a refusal is stored without undoing what had been written: the refused order stays",
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
        "cancelling twice gives the stock back twice",
        (
            Edit(
                LIFECYCLE,
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
        "nobody locks the order and nobody looks at what a guarded write met: two cancels at once",
        (
            Edit(
                ORDERS,
                "where order_id = %(order_id)s::uuid\nfor update\n",
                "where order_id = %(order_id)s::uuid\n",
            ),
            Edit(
                SAGA,
                'assert rows, f"a guarded statement returned no row: {statement}"',
                "_ = (rows, statement)",
            ),
        ),
        ("I-16", "I-17"),
    ),
    Mutant(
        "M-10",
        "H-03",
        "oversell by lost update: stock is read, compared and written as an absolute value",
        (
            Edit(
                INVENTORY,
                """set reserved = s.reserved + a.qty
  from asked a join locked using (product_id)
  where s.product_id = a.product_id and s.on_hand - s.reserved >= a.qty""",
                """set reserved = seen.reserved + a.qty
  from asked a join (select product_id, on_hand, reserved from shop.stock) seen
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
        "what is asked for is held, whether there is as much or not",
        (_without(INVENTORY, " and s.on_hand - s.reserved >= a.qty"), *NO_STOCK_CHECKS),
        ("I-01", "I-04"),
    ),
    Mutant(
        "M-12",
        "H-04",
        "stock leaks: a cancelled order's reservation ends, the counter never hears of it",
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
        "what is sold stays on the shelf: the move is written, the count is not",
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
        "the order is cancelled and its stock is not: the two no longer move together",
        (
            Edit(
                LIFECYCLE,
                "ChangeReservations(ReservationStatus.HELD, ReservationStatus.RELEASED),\n"
                "            ChangeOrderStatus(OrderStatus.PENDING, _cancel_target(state), message",
                "ChangeOrderStatus(OrderStatus.PENDING, _cancel_target(state), message",
            ),
        ),
        ("I-06", "Q-03"),
    ),
)

# ---------------------------------------------------------------- money in

_PAYMENTS = (
    Mutant(
        "M-15",
        "H-05",
        "the provider is called inside the transaction: a crash leaves a charge without a trace",
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
                "def execute_and_record(self, two_phase_call: TwoPhaseCall[Call, Outcome], "
                "call: Call) -> None:",
                "def execute_and_record(self, two_phase_call, call, inside=None) -> None:",
            ),
            Edit(
                EVENT_CONTEXT,
                """        with self.transaction(before_commit=Failpoint.OUTCOME_WRITTEN) as tx:
            two_phase_call.record(tx, call, outcome)""",
                """        if inside is not None:
            two_phase_call.record(inside, call, outcome)
            return
        with self.transaction(before_commit=Failpoint.OUTCOME_WRITTEN) as tx:
            two_phase_call.record(tx, call, outcome)""",
            ),
        ),
        ("I-11", "Q-06"),
    ),
    Mutant(
        "M-16",
        "H-07",
        "a timeout is taken for a no, and the money that comes all the same is nobody's",
        (
            Edit(
                CHARGING,
                "return messages.PaymentUnknown(payment_id)",
                "return messages.Declined(payment_id)",
            ),
            LATE_CAPTURE_IGNORED,
        ),
        ("Q-06",),
    ),
    Mutant(
        "M-17",
        "5.9: 404 believed final",
        "a 404 is taken for never, and the charge that arrives late is ignored",
        (
            Edit(
                SANDBOX,
                "    if answer.status != 200 or kind not in _OUTCOMES:",
                """    if answer.status == 404:
        return Outcome("voided")
    if answer.status != 200 or kind not in _OUTCOMES:""",
            ),
            LATE_CAPTURE_IGNORED,
        ),
        ("Q-06",),
    ),
    Mutant(
        "M-18",
        "5.9: captured ignored once cancelled",
        "the provider's word is not heard any more once the buyer has cancelled",
        (
            Edit(
                LIFECYCLE,
                "if payment is None or payment.status == PaymentStatus.CAPTURED:",
                "if payment is None or payment.status == PaymentStatus.CAPTURED or "
                "state.order.status in CLOSED_ORDER:",
            ),
        ),
        ("Q-02", "Q-06", "rest"),
    ),
    Mutant(
        "M-19",
        "5.9: late capture not refunded",
        "money that comes after the order's end is booked and kept",
        (
            Edit(
                LIFECYCLE,
                "return (change, post, OpenRefund("
                'payment.payment_id, payment.amount_minor, "LATE_CAPTURE"))',
                "return (change, post)",
            ),
        ),
        ("I-09", "Q-01", "Q-04", "rest"),
    ),
    Mutant(
        "M-20",
        "5.9: a new key after a timeout",
        "a payment that is taken up again goes under another key: the provider charges twice",
        (
            Edit(
                CHARGING,
                "return _pending_charge("
                "due.order_id, attempt, decide.provider_call(rows.state, payment))",
                """pending = _pending_charge(
        due.order_id, attempt, decide.provider_call(rows.state, payment)
    )
    call = replace(pending.call, key=pending.call.key + ":again")
    return replace(pending, call=call)""",
            ),
            Edit(
                CHARGING,
                "from dataclasses import field\n",
                "from dataclasses import field, replace\n",
            ),
        ),
        ("I-11", "Q-06"),
    ),
    Mutant(
        "M-21",
        "5.9: no one-live-payment rule",
        "an order may have two open payments: whoever thinks it is due charges it",
        (
            Edit(
                LIFECYCLE,
                """        order.status != OrderStatus.PENDING
        or not order.charge_requested
        or state.open_payment
        or state.settling_payment
""",
                "        order.status != OrderStatus.PENDING\n",
            ),
            _without(SAGA, "    batch.add(orders.charge_started(batch.order_id))\n"),
            NO_ONE_LIVE_PAYMENT,
        ),
        ("I-09",),
    ),
    Mutant(
        "M-22",
        "H-07",
        "the amount the provider names is believed and booked without comparing it",
        (
            Edit(
                SANDBOX,
                'if amount_in(body.get("amount_minor")) != amount_minor:',
                'if amount_in(body.get("amount_minor")) is None:',
            ),
            Edit(
                LIFECYCLE,
                "if (message.amount_minor, message.currency) != "
                "(payment.amount_minor, payment.currency):",
                "if message.currency != payment.currency:",
            ),
            Edit(
                LIFECYCLE,
                "PostingKind.CAPTURE, payment.payment_id, payment.amount_minor, payment.currency",
                "PostingKind.CAPTURE, payment.payment_id, message.amount_minor, payment.currency",
            ),
        ),
        ("I-13",),
    ),
    Mutant(
        "M-23",
        "5.9: no void for cancelled orders",
        "the open payment of a cancelled order is left alone: no tombstone, no answer, no end",
        (
            Edit(
                CHARGING,
                "    tx.execute(payments.postpone(payment_id))\n",
                """    if decide.provider_call(rows.state, payment) == "cancel":
        return None
    tx.execute(payments.postpone(payment_id))
""",
            ),
        ),
        ("Q-01", "Q-02", "rest"),
    ),
    Mutant(
        "M-24",
        "H-07",
        "what is unknown stays unknown: no timer asks the provider again",
        (
            Edit(
                DUE,
                "context.run(charge.RESOLVE, UUID(subject))",
                "context.log_postponed(subject)",
            ),
        ),
        ("Q-01", "Q-02", "rest"),
    ),
    Mutant(
        "M-25",
        "H-14",
        "the total is too narrow a number (8 bits stand for the original's 32)",
        (
            Edit(
                ORDERS,
                "'PENDING', sum(qty * price_minor), min(currency),",
                "'PENDING', greatest(1, sum(qty * price_minor)::bigint & 255), min(currency),",
            ),
        ),
        ("I-07",),
    ),
    Mutant(
        "M-26",
        "H-17",
        "the order's total comes from a stale cache: the price of the customer's first purchase",
        (
            Edit(
                ORDERS,
                "select p.product_id, a.qty, p.price_minor, p.currency",
                """select p.product_id, a.qty, p.price_minor, p.currency,
    coalesce((select l.unit_price_minor from shop.order_lines l
      where l.product_id = p.product_id order by l.order_id limit 1), p.price_minor) as cached""",
            ),
            Edit(
                ORDERS,
                "'PENDING', sum(qty * price_minor), min(currency),",
                "'PENDING', sum(qty * cached), min(currency),",
            ),
        ),
        ("I-07",),
    ),
)

# ---------------------------------------------------------------- money out, and the books

_BOOKS = (
    Mutant(
        "M-27",
        "5.9: refund with a fresh key per try",
        "each further try of a refund goes under a key of its own: money goes back twice",
        (
            Edit(
                REFUNDING,
                "key=refund.provider_key,",
                'key=refund.provider_key + (f":{refund.tries}" if refund.tries else ""),',
            ),
        ),
        ("Q-06",),
    ),
    Mutant(
        "M-28",
        "H-12",
        "a paid order is cancelled and its money is kept: no refund is opened",
        (_without(LIFECYCLE, "        *refund,\n"),),
        ("Q-01", "Q-04", "rest"),
    ),
    Mutant(
        "M-29",
        "H-07",
        "a refund that timed out is taken for done",
        (
            Edit(
                REFUNDING,
                "return messages.RefundUnknown(refund_id)",
                "return messages.Refunded(refund_id)",
            ),
        ),
        ("Q-06",),
    ),
    Mutant(
        "M-30",
        "H-11",
        "one hiccup is final: a refund is tried once and never again",
        (
            Edit(
                DUE,
                "context.run(refund.REFUND, UUID(subject))",
                "context.log_postponed(subject)",
            ),
        ),
        ("Q-01", "Q-02", "rest"),
    ),
    Mutant(
        "M-31",
        "H-10",
        "every notice of one capture is counted: nothing is unique about a posting",
        (
            Edit(
                LIFECYCLE,
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
            NO_ONE_POSTING,
        ),
        ("I-13",),
    ),
    Mutant(
        "M-32",
        "H-09",
        "a refund is never taken off the revenue: nothing is posted for it",
        (
            _without(
                LIFECYCLE,
                "        PostToLedger(PostingKind.REFUND, refund.refund_id, "
                "refund.amount_minor, currency),\n",
            ),
        ),
        ("I-13",),
    ),
    Mutant(
        "M-33",
        "H-16",
        "a day is closed while it still runs, without waiting for anybody",
        (
            Edit(
                PROMISES,
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
        "no inbox: no consumer remembers what it took",
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
        ("Q-07", "rest"),
    ),
    Mutant(
        "M-35",
        "H-08",
        "no outbox: an event lives in the memory of the process that announces it",
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
        "an event is published before the transaction that would make it true",
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
        "the broker's word is enough: what was sent counts as taken",
        (Edit(OUTBOX, "then done_at else now() end", "then now() else now() end"),),
        ("Q-07",),
    ),
    Mutant(
        "M-38",
        "H-11",
        "nobody relays: what was not published at once never is",
        (
            Edit(
                DUE,
                "context.relay([_as_outbox_row(row) for row in due])",
                'context.log_postponed(f"{len(due)} events are due")',
            ),
        ),
        ("Q-07", "rest"),
    ),
    Mutant(
        "M-39",
        "S-12",
        "events are believed as they come: nobody asks who signed them",
        (_without(EVENT_PIPELINE, "        _authenticate(services, event)\n"),),
        ("Q-09", "I-20"),
    ),
    Mutant(
        "M-40",
        "S-12",
        "an event must be signed, but whether the signature is right is not looked at",
        (_without(SIGNATURES, "        self._check_signature(kid, key, signature, event)\n"),),
        ("Q-09", "I-20"),
    ),
    Mutant(
        "M-41",
        "S-12",
        "any key speaks for any source, and any source announces anything",
        (
            Edit(SIGNATURES, "if not key.speaks_for(event.source):", "if not event.source:"),
            Edit(EVENT_PIPELINE, "if name not in emits:", "if not name:"),
        ),
        ("Q-09",),
    ),
    Mutant(
        "M-42",
        "H-10",
        "a message nobody can read is dropped in silence",
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
        "dead letters ring an alarm and are thrown away",
        (_without(DEAD_LETTER, "        dead_letters.store(letter),\n"),),
        ("Q-09",),
    ),
)

# ---------------------------------------------------------------- who may do what

_ACCESS = (
    Mutant(
        "M-44",
        "S-01",
        "whoever sends X-User-Id is that user, without a token",
        (
            Edit(
                AUTHENTICATION,
                '    caller = services.tokens.verify(http_request.headers.get("authorization"), '
                "utc_now())\n",
                """    claimed = http_request.headers.get("x-user-id", "")
    if claimed.isdigit():
        from uuid import UUID
        from shop.primitives.messages import Caller

        return Caller(int(claimed), needed, UUID(int=0))
    caller = services.tokens.verify(http_request.headers.get("authorization"), utc_now())
""",
            ),
            Edit(
                REQUEST_CONTEXT,
                "        if self._caller is not None:\n            from shop.sessions",
                "        if self._caller is not None and self._caller.session_id.int:\n"
                "            from shop.sessions",
            ),
        ),
        ("probes",),
    ),
    Mutant(
        "M-45",
        "S-03",
        "anybody who is signed in reads anybody's order",
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
        "anybody who is signed in cancels anybody's order",
        (
            _without(
                SAGA,
                '    if rows.order.user_id != user_id:\n        raise not_found("the order")\n',
            ),
            NO_ROW_SECURITY,
        ),
        ("probes",),
    ),
    Mutant(
        "M-47",
        "S-05",
        "there are no roles: a customer does what staff, support and finance do",
        (
            Edit(
                AUTHENTICATION,
                'if needed not in ("customer", caller.role):',
                'if needed == "nobody":',
            ),
        ),
        ("probes",),
    ),
    Mutant(
        "M-48",
        "S-04",
        "anybody may speak for the payment provider: a webhook's signature is not compared",
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

MUTANTS = (*_KEYS, *_STOCK, *_PAYMENTS, *_BOOKS, *_EVENTS, *_ACCESS)

# What a load with faults cannot show, or what has no place in this shop to be put back.
NOT_APPLICABLE: dict[str, str] = {
    "H-01b": "dead annotations are no behaviour; our retries are timers, see M-24, M-30 and M-38",
    "H-06": "a cart becomes one order and nothing is charged in its transaction; see M-15",
    "H-13": "placing never waits for money, so no route answers 402",
    "H-15": "months are derived from days by a query; no month is stored that could be re-run",
    "H-18": "size of answers: tests/functions/test_list_products.py",
    "H-19": "what a probe asks: tests/flows/test_function_processes.py and the manifests' tests",
    "H-20": "statuses of refusals: tests/functions/test_register.py and test_login.py",
    "H-21": "about the original's tests; this catalogue is the answer",
    "S-02": "the same header as S-01, sent past the gateway: M-44 is inside each function",
    "S-06": "forged tokens are a corpus, not a load: tests/security/test_token_corpus.py",
    "S-07": "rates are counted beside the load: tests/security/test_rate_limit.py",
    "S-08": "passwords and guessing: tests/functions/test_login.py and test_register.py",
    "S-09": "a deployment's credentials: tests/tools/local_platform/test_secrets.py; manifests",
    "S-10": "no such console exists; the documents carry no third party's script",
    "S-11": "what errors show: tests/security/test_bad_input.py",
    "S-13": "how pods run: the manifests' tests",
    "S-14": "how images are built: the workflows",
    "S-15": "how an ingress routes: tests/flows/test_envoy_edge.py",
    "5.9: decline applied by order": "needs a decline that overtakes a second attempt's capture; "
    "the model finds it (tests/unit/test_model.py)",
}
