"""Links between the pages of a list (RFC 8288)."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode


def next_page(path: str, parameters: Mapping[str, object]) -> dict[str, str]:
    """The header ``Link`` to the next page; parameters that are None are left out."""
    given = {name: value for name, value in parameters.items() if value is not None}
    return {"link": f'<{path}?{urlencode(given)}>; rel="next"'}
