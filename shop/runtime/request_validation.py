"""Validation of a request's body, query and idempotency key against what its route declares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shop.messaging import idempotency
from shop.primitives.errors import ClientError
from shop.primitives.languages import Phrase
from shop.runtime import http_messages as http

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic_core import ErrorDetails

    from shop.runtime.http_messages import HttpRequest
    from shop.runtime.routing import Operation

ERRORS_MAX = 20


# Any: the model of the route's schema.py; the handler's signature names its type.
def parse_body(operation: Operation, http_request: HttpRequest, raw_body: bytes) -> Any:
    """The validated body, None where the route has none; 415, 400 or 422 for anything else."""
    route = operation.route
    if operation.body_model is None:
        return None
    document: object = {}
    if raw_body or not route.body_is_optional:
        document = http.parse_json(http_request, raw_body)
    return _validate(operation.body_model, document, status=422, code="INVALID")


def parse_query(operation: Operation, http_request: HttpRequest, *, ignores_unknown: bool) -> Any:
    """The validated query, None where the route has none; 400 for anything else.

    Public reads may ignore unknown parameters: those that trackers add to links.
    """
    is_public_read = operation.route.auth == "public" and operation.route.method == "GET"
    known = operation.query_names if ignores_unknown and is_public_read else None
    parameters = http.parse_query(http_request.query, known=known)
    if operation.query_model is not None:
        return _validate(operation.query_model, parameters, status=400, code="BAD_QUERY")
    if parameters:
        raise ClientError(400, "BAD_QUERY", "this resource takes no query parameters")
    return None


def parse_idempotency_key(
    operation: Operation, http_request: HttpRequest, *, is_required: bool
) -> str | None:
    """The request's key on a route that honours keys; 400 when malformed, or required and missing.

    On other routes a malformed key is an error too, a well-formed one is ignored.
    """
    header = http_request.headers.get("idempotency-key")
    if header is not None:
        key = idempotency.parse_key(header)
        return key if operation.route.idempotent else None
    if operation.route.idempotent and is_required:
        raise ClientError(400, "IDEMPOTENCY_KEY_REQUIRED", "this route needs an Idempotency-Key")
    return None


def _validate(model: type[BaseModel], document: object, *, status: int, code: str) -> BaseModel:
    from pydantic import ValidationError  # the model's module has imported it already

    try:
        return model.model_validate(document)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)[:ERRORS_MAX]
        mistakes = [_mistake(item) for item in found]
        field, first = mistakes[0]["field"], mistakes[0]["message"]
        message = (
            Phrase("{field}: {message}", field=field, message=first)
            if field
            else Phrase("body: {message}", message=first)
        )
        raise ClientError(status, code, message, extra={"errors": mistakes}) from error


def _mistake(item: ErrorDetails) -> dict[str, str]:
    """The field and what is wrong with it, in pydantic's words or in those of a validator."""
    template, values = item["type"], item.get("ctx", {})
    raised = values.get("error")
    if isinstance(raised, ValueError):
        said = raised.args[0] if raised.args else ""
        template, values = said, {}
        if isinstance(said, Phrase):
            template, values = said.template, said.values
    elif "expected" in values:
        values = {"expected": values["expected"].replace(" or ", ", ")}
    message = Phrase(str(template), english=item["msg"], **values)
    return {"field": ".".join(str(part) for part in item["loc"]), "message": message}
