"""Pictures of the storefront in ``.shop/screenshots``, which CI keeps, and those of the README."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Browser

from tests.tools.e2e.running_shop import RunningShop
from tools.screenshots import APPEARANCES, take_all

ROOT = Path(__file__).resolve().parents[2]
README_BYTES_MAX = 60_000


def test_each_page_is_pictured_light_dark_and_on_a_phone(
    browser: Browser, shop: RunningShop
) -> None:
    folder = ROOT / ".shop" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    taken = take_all(browser, shop.url, folder)
    pages = {file.stem.rpartition("-")[0] for file in taken}
    assert len(taken) == len(APPEARANCES) * len(pages) == 30
    assert all(file.stat().st_size > 5_000 for file in taken)


def test_pictures_of_the_readme_are_small() -> None:
    pictures = sorted((ROOT / "docs" / "images").glob("*.webp"))
    readme = (ROOT / "README.md").read_text("utf-8")
    assert len(pictures) == 3
    assert all(f"docs/images/{picture.name}" in readme for picture in pictures)
    assert all(picture.stat().st_size <= README_BYTES_MAX for picture in pictures)
