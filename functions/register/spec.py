"""Create an account, and show the caller's own."""

from shop.primitives.spec import FunctionSpec, Route, Scale

SPEC = FunctionSpec(
    name="register",
    summary="Create customers' accounts and show the caller's own.",
    database_role="identity",
    cold_start_budget=2.0,
    routes=(
        Route(
            method="POST",
            path="/users",
            handler="register",
            auth="public",
            summary="Create a customer's account, one per e-mail address.",
            body="Registration",
            response="AccountView",
            status=201,
            error_statuses=(409, 422, 503),
            headers=("Location",),
            idempotent=True,
            writes=True,
            group="users",
        ),
        Route(
            method="GET",
            path="/users/me",
            handler="read_me",
            auth="customer",
            summary="The account of the caller.",
            response="AccountView",
            other_statuses=(304,),
            headers=("ETag",),
            group="users",
        ),
    ),
    emits=("user.registered", "user.email-verification-requested"),
    needs=("postgres",),
    # 80 MiB for the process and 19 MiB for each of four hashes at once, fit
    scale=Scale(concurrency=8, max_scale=5, cpu_millis=35, memory_mib=160),
)
