"""Examples of problem documents for OpenAPI: for each operation and status those that it answers.

They are the errors of the runtime that may concern the operation, and those that the source of its
handler raises (``tools.render.error_codes``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

from shop.primitives.money import ORDER_TOTAL_MAX
from shop.primitives.spec import SIGNED, Route
from tools.render.error_codes import errors_of
from tools.render.models import Schema
from tools.render.problems import PLACEHOLDER, Sentence

REFERENCE = "#/components/examples/"
INSTANCE = "/path/of/the/request"
VALUES: Mapping[str, object] = {
    "countries": "KR",
    "currencies": "KRW, USD",
    "currency": "KRW",
    "media_type": "application/json",
    "limit": 120,
    "options": "color, size",
    "roles": "staff",
    "scope": "orders:read",
    "scopes": "orders:read, orders:write",
    "total": ORDER_TOTAL_MAX,
    "what": "the order",
}
OTHER_VALUE = 20
OF_FIELD = "{field}: {message}"

# the members that an error has beside those of every problem document
MEMBERS: Mapping[str, Schema] = {
    "BAD_QUERY": {"errors": [{"field": "limit", "message": "must be a whole number in digits"}]},
    "COUPON_NOT_USABLE": {"coupons": [{"code": "SPRING", "reason": "USED_UP"}]},
    "INTERNAL": {"traceId": "4bf92f3577b34da6a3ce929d0e0e4736"},
    "INVALID": {
        "errors": [{"field": "quantity", "message": "Input should be greater than or equal to 1"}]
    },
    "LIMIT_BELOW_USES": {"uses": 20},
    "OPTIONS_TAKEN": {"productId": 1},
    "OUT_OF_STOCK": {"products": [{"productId": 1, "available": 3}]},
    "PRICE_CHANGED": {"totalAmount": 21000, "currency": "KRW"},
    "TOO_MUCH_UNPAID": {"products": [{"productId": 1}]},
    "UNKNOWN_PRODUCT": {"products": [{"productId": 999}]},
}

# errors of the runtime, first the one that is shown first
ALWAYS = (
    Sentence(400, "BAD_QUERY", OF_FIELD),
    Sentence(406, "NOT_ACCEPTABLE", "this resource is {media_type}"),
    Sentence(408, "REQUEST_TIMEOUT", "the request did not arrive in time"),
    Sentence(413, "TOO_LARGE", "the body may have at most 65536 bytes"),
    Sentence(414, "URI_TOO_LONG", "the path may have at most 2048 characters"),
    Sentence(415, "UNSUPPORTED_MEDIA_TYPE", "compressed bodies are not accepted"),
    Sentence(429, "RATE_LIMITED", "at most {limit} requests a minute"),
    Sentence(431, "HEADERS_TOO_LARGE", "the headers may have at most 16384 bytes"),
    Sentence(500, "INTERNAL", "something went wrong on our side"),
    Sentence(503, "UNAVAILABLE", "the database is busy"),
)
WITH_BODY = (
    Sentence(400, "BAD_JSON", "the body is not one valid JSON document"),
    Sentence(415, "UNSUPPORTED_MEDIA_TYPE", "the body must be application/json in UTF-8"),
    Sentence(422, "INVALID", OF_FIELD),
)
WITH_KEY = (
    Sentence(
        400,
        "BAD_IDEMPOTENCY_KEY",
        "Idempotency-Key must be 16 to 64 characters of A-Z a-z 0-9 _ -",
    ),
    Sentence(409, "REQUEST_IN_PROGRESS", "a request with this Idempotency-Key is being answered"),
    Sentence(422, "IDEMPOTENCY_KEY_REUSED", "this Idempotency-Key was used with another request"),
)
SIGNED_IN = (
    Sentence(401, "UNAUTHENTICATED", "the session has ended"),
    Sentence(403, "INSUFFICIENT_SCOPE", "the API key does not have the scope {scope}"),
)
WITH_ROLE = (Sentence(403, "FORBIDDEN", "this needs the role {roles}"),)
# to a client that looks for no page
NO_PAGE = (Sentence(404, "NOT_FOUND", "there is nothing at this path"),)
# errors to machines, which have sentences in English only
OF_PROVIDER = (Sentence(401, "INVALID_SIGNATURE", "the signature is wrong"),)


def sentences_of(function: str, route: Route) -> dict[int, list[Sentence]]:
    """The errors of an operation by status: its own before those of the runtime."""
    own = sorted(errors_of(function, route.handler))
    found: dict[int, list[Sentence]] = {}
    for sentence in (*own, *_of_runtime(route)):
        listed = found.setdefault(sentence.status, [])
        if sentence not in listed:
            listed.append(sentence)
    return found


def _of_runtime(route: Route) -> tuple[Sentence, ...]:
    found = (WITH_BODY if route.body else ()) + ALWAYS + (WITH_KEY if route.idempotent else ())
    if route.static == "page":
        return found + NO_PAGE
    if route.auth in SIGNED:
        return found + OF_PROVIDER
    if route.auth == "public":
        return found
    return found + (SIGNED_IN if route.auth == "customer" else WITH_ROLE + SIGNED_IN)


@cache
def name_of(sentence: Sentence) -> str:
    """The name of a sentence's example among ``components.examples``."""
    words = re.sub(r"[^A-Za-z0-9]+", "-", PLACEHOLDER.sub(r"\1", sentence.english))
    return f"{sentence.code}.{words.strip('-').lower()}"


def example_of(sentence: Sentence, title: str) -> Schema:
    """The problem document of a sentence, as an OpenAPI example."""
    members = MEMBERS.get(sentence.code, {})
    values = VALUES
    if sentence.english == OF_FIELD:
        values = members["errors"][0]
    elif "errors" in members:  # the others name no field
        members = {}
    message = PLACEHOLDER.sub(
        lambda found: str(values.get(found[1], OTHER_VALUE)), sentence.english
    )
    return {
        "summary": f"{sentence.code}: {message}",
        "value": {
            "type": f"urn:msa-shop:problem:{sentence.code.lower().replace('_', '-')}",
            "title": title,
            "status": sentence.status,
            "detail": message,
            "instance": INSTANCE,
            "error": sentence.code,
            "message": message,
            **members,
        },
    }
