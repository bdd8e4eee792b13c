"""Send mails about orders, refunds and accounts."""

from __future__ import annotations

from shop.primitives.spec import FunctionSpec, Scale, Schedule, Subscription

SPEC = FunctionSpec(
    name="notify",
    summary="Send mails about orders, refunds and accounts.",
    database_role="notices",
    reads_links=True,
    cold_start_budget=1.3,
    needs=("postgres", "smtp"),
    scale=Scale(concurrency=4, max_scale=3),
    timeout_seconds=40,
    subscriptions=(
        Subscription(
            event="order.paid",
            handler="notify",
            summary="Confirm a paid order to its customer.",
        ),
        Subscription(
            event="order.cancelled",
            handler="notify",
            summary="Say that an order was cancelled, and why.",
        ),
        Subscription(
            event="refund.succeeded",
            handler="notify",
            summary="Say that money was returned.",
        ),
        Subscription(
            event="user.registered",
            handler="notify",
            summary="Welcome a new customer.",
        ),
        Subscription(
            event="user.password-reset-requested",
            handler="notify",
            summary="Send the link to reset a password, unless the address has no account.",
        ),
        Subscription(
            event="user.invited",
            handler="notify",
            summary="Send the link to set the password of a new account.",
        ),
        Subscription(
            event="user.email-verification-requested",
            handler="notify",
            summary="Send the link to verify an address.",
        ),
        Subscription(
            event="user.email-change-requested",
            handler="notify",
            summary="Send the link to the address that an account is to have.",
        ),
        Subscription(
            event="user.email-change-started",
            handler="notify",
            summary="Say to an account's address that a change to another one was requested.",
        ),
        Subscription(
            event="user.email-changed",
            handler="notify",
            summary="Say to the address before that the account has another one.",
        ),
        Subscription(
            event="user.password-changed",
            handler="notify",
            summary="Say that the account has another password.",
        ),
        Subscription(
            event="user.second-factor-enabled",
            handler="notify",
            summary="Say that log-in needs a second factor.",
        ),
        Subscription(
            event="user.second-factor-removed",
            handler="notify",
            summary="Say that log-in needs no second factor any more.",
        ),
        Subscription(
            event="user.recovery-codes-renewed",
            handler="notify",
            summary="Say that the recovery codes were replaced.",
        ),
        Subscription(
            event="user.recovery-code-used",
            handler="notify",
            summary="Say that a recovery code was used.",
        ),
    ),
    schedules=(
        Schedule(
            name="send-mails",
            cron="4,14,24,34,44,54 * * * *",
            # mails are sent when their events arrive; servers ask to wait before the next attempt
            poll_seconds=900,
            handler="send_due_mails",
            summary="Send the mails that are due again.",
            due_kinds=("mail",),
        ),
    ),
)
