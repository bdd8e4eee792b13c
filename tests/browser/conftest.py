"""A local shop and Chromium for the tests of its pages.

Where ``CI`` is set, a missing browser is a failure: ``.ci/run`` installs Debian's package.
Elsewhere these tests are not collected then, since ``make test`` needs only git, make and Python.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.tools.e2e.running_shop import RunningShop, running_shop
from tools import web

PROGRAM = shutil.which("chromium") or shutil.which("google-chrome")
collect_ignore_glob = [] if PROGRAM or "CI" in os.environ else ["test_*.py"]


@pytest.fixture(scope="package")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningShop]:
    """A shop of its own; the pages are built if their sources have changed."""
    web.build()
    settings = {"RATE_LIMIT_PER_MINUTE": "0"}
    with running_shop(tmp_path_factory.mktemp("shop"), environment=settings) as running:
        yield running


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Chromium without a sandbox of its own, which root cannot have."""
    expect.set_options(timeout=60_000)
    assert PROGRAM is not None, "Chromium is missing: apt-get install chromium"
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=PROGRAM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def context(browser: Browser, shop: RunningShop) -> Iterator[BrowserContext]:
    """A person's browser: Korean, without cookies."""
    opened = browser.new_context(
        base_url=shop.url, locale="ko-KR", viewport={"width": 1280, "height": 900}
    )
    opened.set_default_timeout(60_000)
    yield opened
    opened.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A tab; an error of a script, or of the content security policy, fails the test."""
    errors: list[str] = []
    opened = context.new_page()
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on(
        "console",
        lambda message: (
            errors.append(message.text) if "Content Security Policy" in message.text else None
        ),
    )
    yield opened
    assert errors == []
