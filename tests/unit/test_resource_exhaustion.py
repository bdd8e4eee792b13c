"""A process without memory, threads or files responds 503; other unexpected errors are 500."""

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


def raised_during(first: Exception) -> Exception:
    """An error that occurred while another one was handled."""
    error = KeyError("a name that the first one left undefined")
    error.__context__ = first
    return error


OUT_OF_RESOURCES = [
    MemoryError(),
    RuntimeError("can't start new thread"),
    ImportError("_pydantic_core.so: failed to map segment from shared object"),
    OSError(12, "Cannot allocate memory"),
    OSError(24, "Too many open files"),
    raised_during(MemoryError()),
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


def messages(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [json.loads(line)["message"] for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("error", OUT_OF_RESOURCES, ids=repr)
def test_a_process_out_of_resources_responds_503_with_retry_after(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert response_to(error, monkeypatch) == (503, "UNAVAILABLE", "1")
    assert "out of resources" in messages(capsys)


@pytest.mark.parametrize("error", BUGS, ids=repr)
def test_any_other_unexpected_error_responds_500(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert response_to(error, monkeypatch) == (500, "INTERNAL", None)
    assert "bug" in messages(capsys)
