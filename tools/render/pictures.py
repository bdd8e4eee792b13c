"""Renders the pictures of the seeded products (``tools.showcase``) for the pages."""

from __future__ import annotations

from pathlib import Path

from tools import showcase

FOLDER = Path("web/public/assets")


def render() -> dict[Path, str]:
    """One SVG file per product."""
    return {
        FOLDER / showcase.file_name_of(product): showcase.picture_of(product)
        for product in showcase.showpieces()
    }
