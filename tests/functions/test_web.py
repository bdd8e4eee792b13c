"""web: the pages of the shop, built by ``make web``, under a strict content security policy."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re

import pytest

from functions.web.handler import CONTENT_SECURITY_POLICY, PAGES
from shop.registry import spec_of
from shop.runtime.app import App
from shop.runtime.config import Settings
from shop.runtime.http_messages import HttpRequest, HttpResponse
from shop.runtime.services import Services

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
ADDRESSES = ("/", "/set-password", "/verify-email", "/admin")
LOADED = re.compile(
    r'(?:src|href)="(?P<path>/assets/[^"]+)"(?: [^>]*?integrity="(?P<digest>[^"]+)")?'
)


@pytest.fixture(scope="module")
def app() -> App:
    """The function, which needs no server; one request a minute is the limit."""
    assert (PAGES / "storefront.html").is_file(), "the pages are not built: make web"
    settings = Settings(profile="local", rate_limit_per_minute=1)
    return App((spec_of("web"),), Services(settings, source="/shop/web"))


def get(app: App, path: str, **headers: str) -> HttpResponse:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return app.answer(HttpRequest("GET", path, "", named, "127.0.0.1", lambda _size: b""))


@pytest.mark.parametrize("path", ADDRESSES)
def test_browser_gets_page_that_it_validates_at_each_visit(app: App, path: str) -> None:
    response = get(app, path, accept=BROWSER)
    assert response.status == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    again = get(app, path, accept=BROWSER, if_none_match=response.headers["etag"])
    assert (again.status, again.body) == (304, b"")


@pytest.mark.parametrize("path", ADDRESSES)
@pytest.mark.parametrize("accept", ["", "application/json", "*/*", "application/json, */*;q=0.1"])
def test_other_client_gets_not_found_as_json_at_address_of_page(
    app: App, path: str, accept: str
) -> None:
    response = get(app, path, accept=accept)
    unknown = get(app, "/unknown", accept=accept)
    assert (response.status, unknown.status) == (404, 404)
    assert response.body == unknown.body.replace(b'"/unknown"', f'"{path}"'.encode())


@pytest.mark.parametrize("path", ADDRESSES)
def test_page_loads_only_files_of_the_shop_with_their_integrity(app: App, path: str) -> None:
    html = get(app, path, accept=BROWSER).body.decode()
    assert not re.search(r"<style|\son\w+=|\sstyle=|<script(?![^>]*\ssrc=)", html)
    loaded = list(LOADED.finditer(html))
    assert len(loaded) == len(re.findall(r"\s(?:src|href)=", html))
    for match in loaded:
        content = get(app, match["path"]).body
        digest = base64.b64encode(hashlib.sha384(content).digest()).decode()
        # a picture is no code
        assert match["digest"] == (None if match["path"].endswith(".svg") else f"sha384-{digest}")


def test_asset_is_kept_for_a_year_and_sent_in_the_best_coding(app: App) -> None:
    name = next((PAGES / "assets").glob("*.js")).name
    plain = get(app, f"/assets/{name}")
    packed = get(app, f"/assets/{name}", accept_encoding="gzip, deflate")
    smallest = get(app, f"/assets/{name}", accept_encoding="gzip, deflate, br, zstd")
    refused = get(app, f"/assets/{name}", accept_encoding="br;q=0, gzip;q=0.0")
    assert plain.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert "content-encoding" not in plain.headers | refused.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed.body) == plain.body == refused.body
    assert smallest.headers["content-encoding"] == "br"
    assert len(smallest.body) < len(packed.body) < len(plain.body)
    assert len({each.headers["etag"] for each in (plain, packed, smallest)}) == 3


@pytest.mark.parametrize(
    "name", ["unknown.js", "..", "storefront.html", ".made-of", "%2e%2e", "x.js.gz"]
)
def test_name_that_is_no_asset_is_not_found(app: App, name: str) -> None:
    assert get(app, f"/assets/{name}").status == 404


def test_compressed_file_has_no_address_of_its_own(app: App) -> None:
    name = next((PAGES / "assets").glob("*.js.gz")).name
    assert get(app, f"/assets/{name}").status == 404


def test_policy_allows_no_inline_code_and_no_foreign_code(app: App) -> None:
    response = get(app, "/", accept=BROWSER)
    assert response.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in CONTENT_SECURITY_POLICY
    assert response.headers["x-content-type-options"] == "nosniff"


def test_static_files_are_not_counted_by_the_rate_limit(app: App) -> None:
    responses = [get(app, "/", accept=BROWSER) for _ in range(3)]
    assert [each.status for each in responses] == [200, 200, 200]
    assert not any("ratelimit" in each.headers for each in responses)
