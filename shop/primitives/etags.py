"""Entity tags and the two conditional headers (RFC 9110 sections 8.8.3, 13.1.1 and 13.1.2)."""

from __future__ import annotations

import hashlib
import re

TAG = re.compile(r'(?P<weak>W/)?"(?P<opaque>[\x21\x23-\x7e\x80-\xff]*)"')
TAGS_MAX = 20


def tag_of_bytes(content: bytes) -> str:
    """A strong tag: 128 bits of the SHA-256 of the content."""
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def is_known(if_none_match: str | None, etag: str) -> bool:
    """True when the caller's ``If-None-Match`` names ``etag`` (weak comparison) or is ``*``."""
    if if_none_match is None:
        return False
    if if_none_match.strip() == "*":
        return True
    return etag.strip('"') in (match["opaque"] for match in _tags(if_none_match))


def strong_tags(if_match: str) -> list[str] | None:
    """The strong tags of an ``If-Match`` header, or None for ``*``, which matches any state.

    Weak tags never match (strong comparison); text without a tag matches nothing.
    """
    if if_match.strip() == "*":
        return None
    return [match["opaque"] for match in _tags(if_match) if not match["weak"]]


def _tags(header: str) -> list[re.Match[str]]:
    return list(TAG.finditer(header))[:TAGS_MAX]
