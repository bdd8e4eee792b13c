"""Open, renew and end sessions; publish the public keys of access tokens."""

from shop.primitives.spec import FunctionSpec, Route, Scale

# No route here honours Idempotency-Key: a stored response would hold tokens in clear text, of which
# only hashes may be stored (docs/adr/0011).  Repeating a request is harmless: a second log-in opens
# a second session, a second log-out has the same response, a reused refresh token is rejected.
SPEC = FunctionSpec(
    name="login",
    summary="Open, renew and end sessions; publish the keys that verify access tokens.",
    database_role="identity",
    cold_start_budget=2.2,
    routes=(
        Route(
            method="POST",
            path="/auth/login",
            handler="log_in",
            auth="public",
            summary="Open a session with e-mail and password.",
            body="Login",
            response="TokenPair",
            error_statuses=(401, 403, 422, 429, 503),
            headers=("Set-Cookie",),
            writes=True,
            transaction=False,
            group="auth",
        ),
        Route(
            method="POST",
            path="/auth/refresh",
            handler="refresh",
            auth="public",
            summary="Exchange a refresh token, once, for a new pair of tokens.",
            body="Refresh",
            response="TokenPair",
            error_statuses=(401, 422),
            writes=True,
            transaction=False,
            group="auth",
        ),
        Route(
            method="POST",
            path="/auth/logout",
            handler="log_out",
            auth="public",
            summary="End the session of the access token, or of the refresh token in the body.",
            body="Logout",
            body_is_optional=True,
            status=204,
            error_statuses=(401, 422),
            writes=True,
            transaction=False,
            group="auth",
        ),
        Route(
            method="GET",
            path="/.well-known/jwks.json",
            handler="show_keys",
            auth="public",
            summary="The public keys of access tokens (RFC 7517).",
            response="KeySet",
            transaction=False,
            group="auth",
        ),
    ),
    needs=("postgres",),
    issues_tokens=True,
    # 80 MiB for the process and 19 MiB for each of four concurrent hashes fit
    scale=Scale(concurrency=8, max_scale=5, cpu_millis=35, memory_mib=160),
)
