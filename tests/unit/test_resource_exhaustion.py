"""A process without memory or threads responds 503; other unexpected errors are 500."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shop.registry import spec_of
from shop.runtime import app as app_module
from shop.runtime.app import App
from shop.runtime.config import Settings
from shop.runtime.http_messages import HttpRequest
from shop.runtime.services import Services

OUT_OF_RESOURCES = [
    MemoryError(),
    RuntimeError("can't start new thread"),
    ImportError("_pydantic_core.so: failed to map segment from shared object"),
    OSError(12, "Cannot allocate memory"),
]
BUGS = [
    ModuleNotFoundError("No module named 'pydantic'"),
    ImportError("cannot import name 'Model'"),
    RuntimeError("dictionary changed size during iteration"),
]


def response_to(error: Exception, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str, str | None]:
    """Status, code and Retry-After of a request during which ``error`` is raised."""

    def fail(_: Any) -> None:
        raise error

    monkeypatch.setattr(app_module, "check_limits", fail)
    settings = Settings(profile="local", rate_limit_per_minute=0)
    app = App((spec_of("api_docs"),), Services(settings, source="/shop/api_docs"))
    response = app.answer(HttpRequest("GET", "/api-docs", "", {}, "203.0.113.7", lambda _: b"", 0))
    return response.status, json.loads(response.body)["error"], response.headers.get("retry-after")


@pytest.mark.parametrize("error", OUT_OF_RESOURCES, ids=repr)
def test_a_process_out_of_resources_responds_503_with_retry_after(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert response_to(error, monkeypatch) == (503, "UNAVAILABLE", "1")


@pytest.mark.parametrize("error", BUGS, ids=repr)
def test_any_other_unexpected_error_responds_500(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert response_to(error, monkeypatch) == (500, "INTERNAL", None)
