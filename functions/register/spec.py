"""register: create an account, and look at one's own."""

from shop.primitives.spec import FunctionSpec, Route, Scale

SPEC = FunctionSpec(
    name="register",
    summary="Creates customers' accounts and shows people their own.",
    database_role="identity",
    routes=(
        Route(
            method="POST",
            path="/users",
            handler="register",
            auth="public",
            summary="Create a customer's account; an e-mail address has one.",
            body="Registration",
            response="AccountView",
            status=201,
            error_statuses=(409, 422, 503),
            idempotent=True,
            writes=True,
            group="users",
        ),
        Route(
            method="GET",
            path="/users/me",
            handler="read_me",
            auth="customer",
            summary="The account of whoever is signed in.",
            response="AccountView",
            group="users",
        ),
    ),
    emits=("user.registered",),
    needs=("postgres",),
    # 80 MiB for the process and 19 MiB for each of four hashes at once, with room to spare
    scale=Scale(concurrency=8, max_scale=5, memory_mib=256),
)
