"""Renders OpenAPI 3.1: one document of all public routes, and one per group.

The specs and models are those that the runtime uses.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shop.primitives.languages import LANGUAGES
from shop.primitives.spec import SIGNED, WITHOUT_ACCOUNT, FunctionSpec, Route
from shop.registry import all_specs
from tools.render import error_examples, models
from tools.render.documents import MARK, json_text
from tools.render.models import REFERENCE, Models, Schema
from tools.render.problems import Sentence
from tools.seed import LOCAL_ACCOUNTS

ASSETS = Path("functions/api_docs/assets/rendered")
ROOT = Path(__file__).parent.parent.parent
FUNCTIONS = ROOT / "functions"
RESPONSES = "#/components/responses/"
HEADER_REFERENCE = "#/components/headers/"
PROBLEM = "application/problem+json"
VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
DESCRIPTION = (
    "Accounts, catalogue, cart, orders, payments and settlement; functions "
    "scale to zero. Amounts are integers in the currency's minor unit."
)

# statuses that the runtime may return for every route
ALWAYS = (400, 406, 408, 413, 414, 415, 429, 431, 500, 503)
WITH_BODY = (422,)
WITH_KEY = (409, 422)
# headers of every response, and of errors
ALWAYS_SENT = ("Cache-Control", "RateLimit", "RateLimit-Policy", "X-Content-Type-Options")
# static files are not counted by the rate limit
NOT_COUNTED = ("RateLimit", "RateLimit-Policy")
SENT_WITH: Mapping[int, tuple[str, ...]] = {
    400: ("Idempotent-Replayed",),
    401: ("WWW-Authenticate",),
    403: ("WWW-Authenticate",),
    404: ("Idempotent-Replayed",),
    409: ("Idempotent-Replayed", "Retry-After"),
    422: ("Idempotent-Replayed",),
    429: ("Retry-After",),
    503: ("Retry-After",),
}
HEADERS: Mapping[str, Schema] = {
    "Cache-Control": {"schema": {"type": "string"}},
    "Content-Disposition": {
        "description": "RFC 6266: the name of the file.",
        "schema": {"type": "string"},
    },
    "Content-Security-Policy": {"schema": {"type": "string"}},
    "Cross-Origin-Opener-Policy": {"schema": {"type": "string", "const": "same-origin"}},
    "Content-Language": {
        "description": "The language of the texts for people; Accept-Language prefers it.",
        "schema": {"type": "string", "enum": sorted(LANGUAGES)},
    },
    "ETag": {
        "description": "A strong tag of the state that the response shows.",
        "schema": {"type": "string", "pattern": '^"[!#-~]+"$'},
    },
    "Idempotent-Replayed": {
        "description": "The response was stored under the Idempotency-Key before.",
        "schema": {"type": "string", "const": "true"},
    },
    "Link": {
        "description": "RFC 8288: the next page, if there is one.",
        "schema": {"type": "string", "pattern": '^<[!-;=?-~]+>; rel="next"$'},
    },
    "Location": {"schema": {"type": "string", "format": "uri-reference"}},
    "Preference-Applied": {
        "description": "RFC 7240: how long the response would have waited.",
        "schema": {"type": "string", "pattern": "^wait=[0-9]+$"},
    },
    "RateLimit": {
        "description": "IETF draft: requests that are left, and seconds until the limit recovers.",
        "schema": {"type": "string", "pattern": '^"default";r=[0-9]+;t=[0-9]+$'},
    },
    "RateLimit-Policy": {
        "description": "IETF draft: requests in a window of seconds; absent without a limit.",
        "schema": {"type": "string", "pattern": '^"default";q=[0-9]+;w=[0-9]+$'},
    },
    "Permissions-Policy": {"schema": {"type": "string"}},
    "Referrer-Policy": {"schema": {"type": "string", "const": "no-referrer"}},
    "Retry-After": {
        "description": "Seconds after which the same request may succeed.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "Set-Cookie": {
        "description": "Marks the device as known to the account.",
        "schema": {"type": "string"},
    },
    "Vary": {"schema": {"type": "string"}},
    "WWW-Authenticate": {"schema": {"type": "string", "pattern": "^Bearer"}},
    "X-Content-Type-Options": {"schema": {"type": "string", "const": "nosniff"}},
}
UUID: Schema = {"type": "string", "format": "uuid"}
BIGINT: Schema = {"type": "integer", "format": "int64", "minimum": 1}
PATH_PARAMETERS: Mapping[str, Schema] = {
    "orderId": UUID,
    "paymentId": UUID,
    "productId": BIGINT,
    "userId": BIGINT,
}
IDEMPOTENCY_KEY: Schema = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": (
        "A repeated key with the same body returns the stored response byte for byte, with "
        "Idempotent-Replayed: true. Quoted (as in the IETF draft) or bare."
    ),
    "schema": {"type": "string", "pattern": '^(?:[A-Za-z0-9_-]{16,64}|"[A-Za-z0-9_-]{16,64}")$'},
}
IF_MATCH: Schema = {
    "name": "If-Match",
    "in": "header",
    "required": True,
    "description": (
        "The strong ETag of the version to change, or a list of at most 20: 428 without it, 412 "
        "when it is stale or weak, 400 when it is malformed."
    ),
    "schema": {"type": "string"},
}
IF_NONE_MATCH: Schema = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "description": "The ETag of a known version: 304 while it is current.",
    "schema": {"type": "string"},
}
PREFER: Schema = {
    "name": "Prefer",
    "in": "header",
    "required": False,
    "description": (
        "wait=N (RFC 7240), at most 20 s: respond once the order is not PENDING. Without "
        "Preference-Applied in the response too many requests waited: repeat it later."
    ),
    "schema": {"type": "string", "examples": ["wait=10"]},
}
# reason phrases of RFC 9110; those of Python's http module differ between versions
PHRASES: Mapping[int, str] = {
    200: "OK",
    201: "Created",
    202: "Accepted",
    204: "No Content",
    302: "Found",
    304: "Not Modified",
    400: "Bad Request",
    401: "Unauthorized",
    402: "Payment Required",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    408: "Request Timeout",
    409: "Conflict",
    412: "Precondition Failed",
    413: "Content Too Large",
    414: "URI Too Long",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    428: "Precondition Required",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
WITHOUT_CONTENT = (204, 302)
PROBLEM_SCHEMA: Schema = {
    "title": "Problem",
    "description": "RFC 9457, plus error (a code for programs) and message (for people).",
    "type": "object",
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string"},
        "instance": {"type": "string", "format": "uri-reference"},
        "error": {"type": "string", "examples": ["OUT_OF_STOCK"]},
        "message": {"type": "string"},
        "traceId": {
            "description": "Of an error 500: the trace under which the shop has logged it.",
            "type": "string",
        },
    },
    "required": ["type", "title", "status", "detail", "instance", "error", "message"],
}
# operations whose response has the value of a path parameter of others (OpenAPI links)
LINKS: Mapping[str, tuple[str, str]] = {
    "place_order": ("orderId", "$response.body#/id"),
    "place_order_from_cart": ("orderId", "$response.body#/id"),
    "list_my_orders": ("orderId", "$response.body#/0/id"),
    "add_product": ("productId", "$response.body#/id"),
    "list_products": ("productId", "$response.body#/0/id"),
    "add_item": ("productId", "$response.body#/productId"),
}
SECURITY_SCHEMES: Schema = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "The accessToken of POST /auth/login (EdDSA).",
    },
    "provider": {
        "type": "apiKey",
        "in": "header",
        "name": "Stripe-Signature",
        "description": "The payment provider's signature of the raw body.",
    },
    "carrier": {
        "type": "apiKey",
        "in": "header",
        "name": "webhook-signature",
        "description": "The carrier's signature, as in Standard Webhooks 1.0.",
    },
}
AUTH_NOTES: Mapping[str, str] = {
    "public": "No authentication.",
    "customer": "Any signed-in account; it accesses its own data only.",
    "operator": "Needs one of the roles staff, support and finance.",
    "operator_or_admin": "Needs one of the roles staff, support, finance and admin.",
    "support_or_admin": "Needs the role support or admin.",
    "settlements": "Policy setting SETTLEMENTS_AUTH: finance (default), customer or public.",
    "provider": "Signed by the payment provider.",
    "carrier": "Signed by a carrier with CARRIER_WEBHOOK_SECRET (Standard Webhooks).",
}


def render() -> dict[Path, str]:
    """The document of all routes, one per group, the list of groups, and the local accounts."""
    specs = all_specs()
    collected = models.collect(specs)
    groups = sorted({group_of(spec, route) for spec in specs for route in spec.routes})
    files = {ASSETS / "openapi.json": json_text(document(specs, collected))}
    for group in groups:
        files[ASSETS / f"openapi-{group}.json"] = json_text(document(specs, collected, group))
    files[ASSETS / "groups.json"] = json_text({"comment": MARK, "groups": groups})
    accounts = [{"role": r, "email": e, "password": p} for r, e, p in LOCAL_ACCOUNTS]
    files[ASSETS / "local-accounts.json"] = json_text({"comment": MARK, "accounts": accounts})
    return files


def group_of(spec: FunctionSpec, route: Route) -> str:
    """The group of a route: its own, or its function's name."""
    return route.group or spec.name.replace("_", "-")


def document(
    specs: tuple[FunctionSpec, ...], collected: Models, group: str | None = None
) -> Schema:
    """OpenAPI 3.1 of one group, or of all; raises ValueError when two routes share a handler."""
    paths: dict[str, Schema] = {}
    seen: set[str] = set()
    for spec in specs:
        for route in spec.routes:
            if group not in (None, group_of(spec, route)):
                continue
            if route.handler in seen:
                raise ValueError(f"two routes have a handler called {route.handler}")
            seen.add(route.handler)
            paths.setdefault(route.path, {})[route.method.lower()] = operation(
                spec, route, collected
            )
    _add_links(paths)
    responses = _shared_errors(paths)
    return {
        "openapi": "3.1.1",
        "jsonSchemaDialect": "https://spec.openapis.org/oas/3.1/dialect/base",
        "info": {
            "title": "msa-shop" if group is None else f"msa-shop: {group}",
            "version": VERSION,
            "description": DESCRIPTION,
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": _tags(specs, group),
        "paths": paths,
        "components": {
            "examples": _used_examples(specs, responses),
            "headers": dict(HEADERS),
            "responses": responses,
            "schemas": _used_schemas(paths, collected),
            "securitySchemes": SECURITY_SCHEMES,
        },
        "x-comment": MARK,
    }


def _add_links(paths: dict[str, Schema]) -> None:
    """Links from the responses of LINKS to the operations of the document with that parameter."""
    operations = [(path, shown) for path, methods in paths.items() for shown in methods.values()]
    for _, source in operations:
        parameter, value = LINKS.get(source["operationId"], ("", ""))
        links = {
            target["operationId"]: {
                "operationId": target["operationId"],
                "parameters": {parameter: value},
            }
            for path, target in operations
            if parameter and f"{{{parameter}}}" in path
        }
        if links:
            success = min(source["responses"])
            source["responses"][success]["links"] = links


def operation(spec: FunctionSpec, route: Route, collected: Models) -> Schema:
    """The OpenAPI operation of a route; its id is the name of the handler."""
    example = example_of(spec, route)
    note = AUTH_NOTES.get(route.auth, f"Needs the role {route.auth}.")
    shown: Schema = {
        "operationId": route.handler,
        "summary": route.summary,
        "description": f"{note} Function `{spec.name}`.",
        "tags": [group_of(spec, route)],
        "parameters": _parameters(spec, route, example.get("query", {})),
        "responses": _responses(spec, route, collected, example.get("response")),
        "security": _security(route),
    }
    if route.body:
        content: Schema = {"schema": collected.reference(spec, route.body, "validation")}
        if "body" in example:
            content["example"] = example["body"]
        required = not route.body_is_optional
        shown["requestBody"] = {"required": required, "content": {"application/json": content}}
    return shown


def _security(route: Route) -> list[Schema]:
    if route.auth == "public":
        return []
    return [{route.auth if route.auth in SIGNED else "bearer": []}]


def _parameters(spec: FunctionSpec, route: Route, example: Schema) -> list[Schema]:
    found = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": PATH_PARAMETERS.get(name, {"type": "string", "maxLength": 200}),
        }
        for name in re.findall(r"\{(\w+)\}", route.path)
    ]
    if route.query:
        found += _query_parameters(spec, route, example)
    if route.idempotent:
        found.append(IDEMPOTENCY_KEY)
    if 412 in route.error_statuses:
        found.append(IF_MATCH if 428 in route.error_statuses else IF_MATCH | {"required": False})
    if 304 in route.other_statuses:
        found.append(IF_NONE_MATCH)
    if _waits(route):
        found.append(PREFER)
    return found


def _waits(route: Route) -> bool:
    """True for reads of customers that support ``Prefer: wait``."""
    return route.method == "GET" and not route.transaction and route.auth == "customer"


def _query_parameters(spec: FunctionSpec, route: Route, example: Schema) -> list[Schema]:
    schema = models.query_schema(spec, route)
    required = schema.get("required", [])
    found: list[Schema] = []
    for name, shape in schema["properties"].items():
        parameter = {"name": name, "in": "query", "required": name in required}
        shape = _without_null({k: v for k, v in shape.items() if k != "title"})
        if "description" in shape:
            parameter["description"] = shape.pop("description")
        if name in example:  # of the schema: pages send a parameter's own example as a filter
            shape = {**shape, "examples": [example[name]]}
        found.append({**parameter, "schema": shape})
    return found


def _without_null(shape: Schema) -> Schema:
    """A schema without the null option: a query parameter is absent, never null."""
    options = [option for option in shape.get("anyOf", []) if option != {"type": "null"}]
    if len(options) != 1:
        return shape
    rest = {k: v for k, v in shape.items() if k not in ("anyOf", "default")}
    return {**options[0], **rest}


def error_statuses_of(route: Route) -> list[int]:
    """Every error status of a route, from the runtime and from its spec."""
    statuses = {*ALWAYS, *route.error_statuses}
    if route.static:
        statuses -= {406, 429}
    if route.auth not in WITHOUT_ACCOUNT:
        # 403 by role, or by the scope of an API key
        statuses.update((401, 403))
    if route.auth in SIGNED:
        statuses.add(401)
    if route.body:
        statuses.update(WITH_BODY)
    if route.idempotent:
        statuses.update(WITH_KEY)
    if "{" in route.path:
        statuses.add(404)
    return sorted(statuses)


def _responses(spec: FunctionSpec, route: Route, collected: Models, example: Any) -> Schema:
    shown = {str(route.status): _success(spec, route, collected, example)}
    for status in route.other_statuses:
        shown[str(status)] = {"description": PHRASES[status], "headers": _headers(route)}
    sentences = error_examples.sentences_of(spec.name, route)
    for status in error_statuses_of(route):
        shown[str(status)] = _error_response(status, sentences[status])
    return shown


def _success(spec: FunctionSpec, route: Route, collected: Models, example: Any) -> Schema:
    shown: Schema = {"description": PHRASES[route.status], "headers": _headers(route)}
    if route.status in WITHOUT_CONTENT or (route.status == 202 and not route.response):
        return shown
    content: Schema = {}
    if route.response:
        content["schema"] = collected.reference(spec, route.response, "serialization")
    elif route.media_type.endswith("json"):
        content["schema"] = {"type": "object"}
    if example is not None:
        content["example"] = example
    shown["content"] = {route.media_type: content}
    if route.is_also_page:
        shown["content"]["text/html"] = {}
    return shown


def _headers(route: Route) -> Schema:
    replayed = ("Idempotent-Replayed",) if route.idempotent else ()
    shown = _header_references(*route.headers, *replayed)
    not_sent = NOT_COUNTED if route.static else ()
    return {name: reference for name, reference in shown.items() if name not in not_sent}


def _header_references(*names: str) -> Schema:
    return {name: {"$ref": HEADER_REFERENCE + name} for name in sorted({*ALWAYS_SENT, *names})}


def _error_response(status: int, sentences: Sequence[Sentence]) -> Schema:
    names = [error_examples.name_of(sentence) for sentence in sentences]
    examples = {name: {"$ref": error_examples.REFERENCE + name} for name in names}
    return {
        "description": PHRASES[status],
        "headers": _header_references("Content-Language", *SENT_WITH.get(status, ())),
        "content": {PROBLEM: {"schema": {"$ref": f"{REFERENCE}Problem"}, "examples": examples}},
    }


def _tags(specs: tuple[FunctionSpec, ...], group: str | None) -> list[Schema]:
    functions: dict[str, list[str]] = {}
    for spec in specs:
        for name in sorted({group_of(spec, route) for route in spec.routes}):
            if group in (None, name):
                functions.setdefault(name, []).append(f"`{spec.name}`: {spec.summary}")
    return [{"name": n, "description": "\n\n".join(functions[n])} for n in sorted(functions)]


def _used_schemas(paths: Schema, collected: Models) -> Schema:
    used: Schema = {"Problem": PROBLEM_SCHEMA}
    components = (RESPONSES, HEADER_REFERENCE)
    waiting = [name for name in models.targets(paths) if not name.startswith(components)]
    while waiting:
        name = waiting.pop()
        if name not in used:
            used[name] = collected.schemas[name]
            waiting += models.targets(used[name])
    return used


def _shared_errors(paths: Schema) -> Schema:
    """Replaces error responses by references; equal ones have the name of the first operation."""
    names: dict[str, str] = {}
    shared: Schema = {}
    for shown in (operation for methods in paths.values() for operation in methods.values()):
        for status, response in shown["responses"].items():
            if int(status) >= min(ALWAYS):
                text = status + json.dumps(response)
                name = names.setdefault(text, f"Problem{status}.{shown['operationId']}")
                shared[name] = response
                shown["responses"][status] = {"$ref": RESPONSES + name}
    return {name: shared[name] for name in sorted(shared)}


def _used_examples(specs: tuple[FunctionSpec, ...], responses: Schema) -> Schema:
    shown = {target.removeprefix(error_examples.REFERENCE) for target in models.targets(responses)}
    sentences = {
        sentence
        for spec in specs
        for route in spec.routes
        for listed in error_examples.sentences_of(spec.name, route).values()
        for sentence in listed
    }
    return {
        error_examples.name_of(sentence): error_examples.example_of(
            sentence, PHRASES[sentence.status]
        )
        for sentence in sorted(sentences)
        if error_examples.name_of(sentence) in shown
    }


def example_of(spec: FunctionSpec, route: Route) -> Schema:
    """``{"query": …, "body": …, "response": …}`` of a route, from the function's example.json.

    That file holds them by handler name, or is itself the body of the function's only one.
    """
    path = FUNCTIONS / spec.name / "example.json"
    examples: Schema = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    if examples.keys() & _handlers(spec) or "specversion" in examples:
        own: Schema = examples.get(route.handler, {})
        return own
    with_body = [r for r in spec.routes if r.body]
    return {"body": examples} if examples and with_body[:1] == [route] else {}


def _handlers(spec: FunctionSpec) -> set[str]:
    return {route.handler for route in spec.routes}
