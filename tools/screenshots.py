"""Pictures of the pages of a running shop: ``python -m tools.screenshots --url URL --out FOLDER``.

Each page is taken light, dark and as on a phone, with a new order of the seeded customer.  With
``--readme`` it takes only the three of the README, as WebP.  It needs Chromium.
"""

from __future__ import annotations

import argparse
import base64
import shutil
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

from playwright.sync_api import Browser, Page, expect, sync_playwright

from tools.seed import LOCAL_ACCOUNTS
from tools.showcase import FIRST_ID

Scheme = Literal["light", "dark"]
APPEARANCES: tuple[tuple[str, Scheme, int], ...] = (
    ("light", "light", 1280),
    ("dark", "dark", 1280),
    ("phone", "light", 390),
)
HEIGHT = 860
VISITOR = {
    "catalogue": "/#/",
    "product": f"/#/products/{FIRST_ID}",
    "sign-in": "/#/sign-in",
    "register": "/#/register",
    "not-found": "/#/nothing",
}
CUSTOMER = {"cart": "/#/cart", "checkout": "/#/checkout", "orders": "/#/orders"}
README_QUALITY = 70
ADDRESS = {
    "recipient": "김손님",
    "phone": "010-1234-5678",
    "postcode": "04524",
    "line1": "서울 중구 세종대로 110",
}


def take_all(browser: Browser, url: str, out: Path) -> list[Path]:
    """Writes a PNG of each page and appearance; returns the files."""
    with _tab(browser, url) as page:
        taken = [each for name, path in VISITOR.items() for each in _take(page, name, path, out)]
        order = _buy(page)
        _fill_cart(page)
        pages = {**CUSTOMER, "order": order, "account": "/#/account"}
        taken += [each for name, path in pages.items() for each in _take(page, name, path, out)]
    return taken


def take_readme(browser: Browser, url: str, out: Path) -> list[Path]:
    """Writes the three WebP pictures of the README; returns the files."""
    with _tab(browser, url) as page:
        order = _buy(page)
        _fill_cart(page)
        return [
            _take_webp(page, "/#/", "light", 1280, out / "storefront.webp"),
            _take_webp(page, order, "dark", 1280, out / "order.webp"),
            _take_webp(page, f"/#/products/{FIRST_ID}", "light", 390, out / "phone.webp"),
        ]


@contextmanager
def _tab(browser: Browser, url: str) -> Generator[Page]:
    context = browser.new_context(base_url=url, locale="ko-KR", reduced_motion="reduce")
    context.set_default_timeout(60_000)
    yield context.new_page()
    context.close()


def _take(page: Page, name: str, path: str, out: Path) -> Iterator[Path]:
    for appearance, scheme, width in APPEARANCES:
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": HEIGHT})
        _open(page, path)
        file = out / f"{name}-{appearance}.png"
        page.screenshot(path=file, full_page=True)
        yield file


def _open(page: Page, path: str) -> None:
    page.goto("about:blank")
    page.goto(path)
    page.locator("main :is(h1, h2)").first.wait_for()
    page.wait_for_load_state("networkidle")
    # not wait_for_function, which the policy of the pages lets evaluate nothing
    expect(page.locator(".skeleton")).to_have_count(0, timeout=60_000)


def _buy(page: Page) -> str:
    """Signs in, places and pays an order of the seeded customer; returns the order's page."""
    _, email, password = LOCAL_ACCOUNTS[0]
    page.goto("/#/sign-in")
    page.locator("[name=email]").fill(email)
    page.locator("[name=password]").fill(password)
    page.locator("form .primary").click()
    page.locator("a[href='#/account']").wait_for()
    _fill_cart(page)
    page.goto("/#/checkout")
    page.locator("[name=paymentMethod]").wait_for()
    if page.locator("[name=addressId]").count() == 0:
        for name, value in ADDRESS.items():
            page.locator(f"[name={name}]").fill(value)
    page.locator("main form .primary").click()
    page.locator("main header .badge.good").wait_for()
    return f"/#{page.url.partition('#')[2]}"


def _fill_cart(page: Page) -> None:
    page.goto(f"/#/products/{FIRST_ID + 4}")
    page.locator(".details .button.primary").click()
    page.locator(".messages p").first.wait_for()


def _take_webp(page: Page, path: str, scheme: Scheme, width: int, file: Path) -> Path:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": HEIGHT})
    _open(page, path)
    # the methods of the protocol have no types
    session = cast("Any", page.context.new_cdp_session(page))
    options = {"format": "webp", "quality": README_QUALITY}
    picture = session.send("Page.captureScreenshot", options)
    file.write_bytes(base64.b64decode(picture["data"]))
    return file


def main() -> int:
    """The exit status; 2 without Chromium."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--out", type=Path, default=Path(".shop/screenshots"))
    parser.add_argument("--readme", action="store_true", help="the three pictures of the README")
    options = parser.parse_args()
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        print("Chromium is missing: apt-get install chromium", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        take = take_readme if options.readme else take_all
        for file in take(browser, options.url, options.out):
            print(file, file.stat().st_size)
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
