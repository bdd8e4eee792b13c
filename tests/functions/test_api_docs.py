"""api_docs: the documents of all functions, served under a strict content security policy."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from events.vocabulary import EVENTS
from functions.api_docs.handler import (
    ASSETS,
    CONTENT_SECURITY_POLICY,
    LOGO_STYLE_HASH,
    SERVICES,
    VENDOR,
)
from shop.registry import all_specs, spec_of
from shop.runtime.app import App
from shop.runtime.config import Settings
from shop.runtime.http_messages import HttpRequest, HttpResponse
from shop.runtime.services import Services
from tests.sample_requests import Samples
from tools.seed import LOCAL_ACCOUNTS

PAGES = ("/api-docs", "/asyncapi")
# modules that slow down a cold start and are not needed to serve a file
FOREIGN = ("psycopg", "pydantic", "cryptography", "jwt", "redis", "sqlalchemy")


@pytest.fixture
def docs() -> App:
    """The function, which needs no other server."""
    settings = Settings(profile="local", rate_limit_per_minute=0)
    return App((spec_of("api_docs"),), Services(settings, source="/shop/api_docs"))


def get(docs: App, path: str) -> HttpResponse:
    """The answer to a GET."""
    return docs.answer(HttpRequest("GET", path, "", {}, "203.0.113.7", lambda _: b"", 0))


class Page(HTMLParser):
    """Collects what a page loads, and its inline scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.inline: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        address = named.get("src") or (named.get("href") if tag in ("link", "a") else None)
        if address:
            self.loads.append(address)
        if tag == "style" or (tag == "script" and "src" not in named):
            self.inline.append(tag)
        self.inline += [name for name in named if name == "style" or name.startswith("on")]


@pytest.mark.parametrize("path", PAGES)
def test_pages_have_no_inline_code_and_load_served_assets_only(docs: App, path: str) -> None:
    answer = get(docs, path)

    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    page = Page(answer.body.decode())
    assert page.inline == []
    assert {address: get(docs, address).status for address in page.loads} == dict.fromkeys(
        page.loads, 200
    )


@pytest.mark.parametrize("name", ASSETS)
def test_each_asset_has_its_media_type(docs: App, name: str) -> None:
    answer = get(docs, f"/api-docs/{name}")

    assert (answer.status, answer.headers["content-type"]) == (200, ASSETS[name][1])
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.body == (ASSETS[name][0] / name).read_bytes()


def test_policy_allows_the_style_of_the_logo_in_the_bundle() -> None:
    bundle = (VENDOR / "swagger-ui-standalone-preset.js").read_text("utf-8")
    styles = set(re.findall(r"\.logo_small_svg__cls-2\{[^\"'<>]+\}", bundle))

    (style,) = styles

    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    assert f"sha256-{digest}" == LOGO_STYLE_HASH
    assert f"style-src 'self' '{LOGO_STYLE_HASH}';" in CONTENT_SECURITY_POLICY


def test_local_profile_has_the_seeded_accounts_and_another_profile_has_none(docs: App) -> None:
    local = json.loads(get(docs, "/api-docs/local-accounts.json").body)
    settings = Settings(profile="prod", rate_limit_per_minute=0)
    deployed = App((spec_of("api_docs"),), Services(settings, source="/shop/api_docs"))

    answer = get(deployed, "/api-docs/local-accounts.json")

    assert [(a["role"], a["email"], a["password"]) for a in local["accounts"]] == [*LOCAL_ACCOUNTS]
    assert (answer.status, json.loads(answer.body)) == (200, {"accounts": []})


def test_each_cell_of_the_event_table_names_its_column_for_narrow_pages(docs: App) -> None:
    page = get(docs, "/asyncapi").body.decode()

    columns = re.findall(r"<th scope=\"col\">([^<]+)</th>", page)[1:]
    named = re.findall(r"<td(?: data-column=\"([^\"]+)\")?>", page)

    assert named == columns * len(EVENTS)


@pytest.mark.parametrize("path", ["/swagger-ui.html", "/api-docs.html"])
def test_page_addresses_of_the_replaced_system_redirect(docs: App, path: str) -> None:
    answer = get(docs, path)

    assert (answer.status, answer.headers["location"], answer.body) == (302, "/api-docs", b"")


def test_each_service_of_the_replaced_system_has_its_document(docs: App) -> None:
    whole = json.loads(get(docs, "/v3/api-docs").body)
    documents = {name: json.loads(get(docs, f"/api-docs/{name}").body) for name in SERVICES}

    assert sorted(SERVICES) == [
        f"{name}-service" for name in ("order", "payment", "product", "settlement", "user")
    ]
    assert {"/users", "/users/me", "/auth/login"} <= set(documents["user-service"]["paths"])
    assert {"/orders", "/cart"} <= set(documents["order-service"]["paths"])
    groups = {group for names in SERVICES.values() for group in names}
    shown = [
        (path, method)
        for document in documents.values()
        for path, methods in document["paths"].items()
        for method in methods
    ]
    assert sorted(shown) == sorted(
        (path, method)
        for path, methods in whole["paths"].items()
        for method, operation in methods.items()
        if groups & {*operation["tags"]}
    )


@pytest.mark.parametrize(
    "path",
    [
        "/api-docs/LICENSE",
        "/api-docs/handler.py",
        "/api-docs/..",
        "/api-docs/../handler.py",
        "/api-docs/%2e%2e%2fhandler.py",
        "/v3/api-docs/nothing",
        "/v3/api-docs/..",
        "/schemas/order.placed.v2.json",
        "/schemas/..",
        "/schemas/__init__.py",
    ],
)
def test_unlisted_paths_get_404(docs: App, path: str) -> None:
    answer = get(docs, path)

    assert (answer.status, json.loads(answer.body)["error"]) == (404, "NOT_FOUND")


def test_groups_together_contain_every_operation_of_the_whole_document(docs: App) -> None:
    whole = json.loads(get(docs, "/v3/api-docs").body)
    groups = json.loads(get(docs, "/api-docs/groups.json").body)["groups"]

    parts = [json.loads(get(docs, f"/v3/api-docs/{group}").body) for group in groups]

    assert whole["openapi"].startswith("3.1")
    shown = sorted(
        (path, method, operation["operationId"])
        for part in parts
        for path, methods in part["paths"].items()
        for method, operation in methods.items()
    )
    assert shown == sorted(
        (route.path, route.method.lower(), route.handler)
        for spec in all_specs()
        for route in spec.routes
    )
    assert shown == sorted(
        (path, method, operation["operationId"])
        for path, methods in whole["paths"].items()
        for method, operation in methods.items()
    )


def test_asyncapi_lists_every_event_with_a_schema_that_is_served(docs: App) -> None:
    asyncapi = json.loads(get(docs, "/v3/asyncapi").body)
    page = get(docs, "/asyncapi").body.decode()

    assert asyncapi["asyncapi"] == "3.0.0"
    assert sorted(asyncapi["channels"]) == sorted(event.name for event in EVENTS)
    for event in EVENTS:
        schema = get(docs, event.schema_path())
        assert (schema.status, schema.headers["content-type"]) == (200, "application/schema+json")
        assert json.loads(schema.body)["$id"] == event.dataschema
        assert f"<code>{event.type}</code>" in page


def test_swagger_ui_version_supports_openapi_3_1() -> None:
    readme = (VENDOR / "README.md").read_text("utf-8")
    bundle = (VENDOR / "swagger-ui-bundle.js").read_text("utf-8")

    version = re.search(r"swagger-ui-dist (\d+)\.\d+\.\d+", readme)

    assert version is not None
    assert int(version[1]) >= 5
    assert "openapi-3-1" in bundle or "isOAS31" in bundle
    assert (VENDOR / "LICENSE").is_file()
    assert (VENDOR / "NOTICE").is_file()


def test_api_docs_imports_no_database_driver() -> None:
    script = (
        "import sys; import functions.api_docs.handler, functions.api_docs.spec; "
        f"print([name for name in {FOREIGN!r} if name in sys.modules])"
    )

    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )

    assert run.stdout.strip() == "[]"


def test_documentation_pages_allow_own_scripts_only_and_no_framing(samples: Samples) -> None:
    """Scripts come from the same origin only, and no page may be framed."""
    page = samples.shop.call("GET", "/api-docs")

    policy = page.headers["content-security-policy"]
    assert "script-src 'self'" in policy and "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(rb"""(?:src|href)=["'](?:https?:)?//""", page.body)
    for path in ("/h2-console", "/actuator/prometheus", "/metrics"):
        assert samples.shop.call("GET", path, function="api_docs").status == 404
