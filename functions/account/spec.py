"""Account holders change their password, and list and end their sessions."""

from shop.primitives.spec import FunctionSpec, Route, Scale

# Changing a password honours no Idempotency-Key: a rejected attempt is counted in a transaction of
# its own.  A repetition after success gets 403, since the old password is wrong then.
SPEC = FunctionSpec(
    name="account",
    summary="Let account holders change their password, and list and end their sessions.",
    database_role="identity",
    cold_start_budget=2.0,
    routes=(
        Route(
            method="POST",
            path="/users/me/password",
            handler="change_password",
            auth="customer",
            summary="Change the password, with the old one; the other sessions end.",
            body="PasswordChange",
            status=204,
            error_statuses=(403, 409, 422, 429, 503),
            writes=True,
            transaction=False,
            group="users",
        ),
        Route(
            method="GET",
            path="/users/me/sessions",
            handler="list_sessions",
            auth="customer",
            summary="The caller's open sessions, newest first.",
            query="ListSessions",
            response="Sessions",
            headers=("Link",),
            group="users",
        ),
        Route(
            method="DELETE",
            path="/users/me/sessions",
            handler="end_other_sessions",
            auth="customer",
            summary="End every session of the caller but the present one.",
            status=204,
            idempotent=True,
            writes=True,
            group="users",
        ),
        Route(
            method="DELETE",
            path="/users/me/sessions/{sessionId}",
            handler="end_session",
            auth="customer",
            summary="End one of the caller's open sessions; its tokens are rejected at once.",
            status=204,
            error_statuses=(404,),
            idempotent=True,
            writes=True,
            group="users",
        ),
    ),
    emits=("user.password-changed",),
    needs=("postgres",),
    # as login: 19 MiB for each of four concurrent hashes
    scale=Scale(concurrency=4, max_scale=3, cpu_millis=20, memory_mib=160),
)
