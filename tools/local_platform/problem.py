"""The platform's own error responses: RFC 9457 problem documents."""

from __future__ import annotations

import json
from http import HTTPStatus

from tools.local_platform.http_messages import HttpResponse

TYPE_PREFIX = "urn:msa-shop:problem:"


def problem(status: int, code: str, message: str, instance: str, **headers: str) -> HttpResponse:
    """A problem document with the members that all errors of the shop have.

    ``instance`` is the request's path; in names of ``headers`` an underscore stands for a hyphen.
    """
    document = {
        "type": TYPE_PREFIX + code.lower().replace("_", "-"),
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": message,
        "instance": instance,
        "error": code,
        "message": message,
    }
    fields = [(b"content-type", b"application/problem+json"), (b"cache-control", b"no-store")]
    fields += [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
    return HttpResponse(status, fields, json.dumps(document).encode("utf-8"))
