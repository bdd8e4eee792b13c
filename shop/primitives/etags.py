"""Entity tags and the two conditional headers (RFC 9110 sections 8.8.3, 13.1.1 and 13.1.2).

A proxy that compresses a response may add the coding to its tag (``"1.5"`` becomes ``"1.5-gzip"``).
Such a tag names the same state of the resource, so the suffix is ignored; our own tags never end in
one.
"""

from __future__ import annotations

import hashlib
import re

from events.records import frozen
from shop.primitives.errors import ClientError
from shop.primitives.languages import Phrase

TAGS_MAX = 20
# one member of a list, which may be empty (RFC 9110 section 5.6.1.2), with the comma after it
MEMBER = re.compile(
    r'[ \t]*+(?:(?P<weak>W/)?"(?P<opaque>[\x21\x23-\x7e\x80-\xff]*+)"[ \t]*+)?(?:,|$)'
)
CODING_SUFFIX = re.compile(r"--?(?:gzip|br|deflate|zstd)$")


@frozen
class _Tag:
    opaque: str
    is_weak: bool


def tag_of_bytes(content: bytes) -> str:
    """A strong tag: 128 bits of the SHA-256 of the content."""
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def is_known(if_none_match: str | None, etag: str) -> bool:
    """True when ``If-None-Match`` is ``*`` or names ``etag`` (weak comparison).

    A header that is not a list of tags is ignored; 400 for one of more than 20 tags.
    """
    if if_none_match is None:
        return False
    if if_none_match.strip() == "*":
        return True
    tags = _tags(if_none_match)
    return tags is not None and etag.strip('"') in (tag.opaque for tag in tags)


def strong_tags(if_match: str) -> list[str] | None:
    """The strong tags of an ``If-Match`` header, or None for ``*``, which matches any state.

    Weak tags never match (strong comparison).  400 for a header that is not a list of tags, or of
    more than 20.
    """
    if if_match.strip() == "*":
        return None
    tags = _tags(if_match)
    if tags is None:
        raise ClientError(400, "BAD_REQUEST", "If-Match must be * or a list of entity tags")
    return [tag.opaque for tag in tags if not tag.is_weak]


def require_if_match(if_match: str | None, what: str) -> str:
    """The ``If-Match`` header of a change; 428 without one."""
    if if_match is None:
        message = Phrase("If-Match must name the ETag of the {what} you read", what=what)
        raise ClientError(428, "PRECONDITION_REQUIRED", message)
    return if_match


def check_if_match(if_match: str | None, etag: str) -> None:
    """412 when ``If-Match`` is given and does not name ``etag``."""
    tags = None if if_match is None else strong_tags(if_match)
    if tags is not None and etag.strip('"') not in tags:
        raise precondition_failed("If-Match names no strong tag of the present state")


def precondition_failed(message: str) -> ClientError:
    """412: the resource has another state than the request requires."""
    return ClientError(412, "PRECONDITION_FAILED", message)


def _tags(header: str) -> list[_Tag] | None:
    """The tags of a list without the suffixes of codings; None when it is malformed."""
    tags: list[_Tag] = []
    end = 0
    while end < len(header):
        member = MEMBER.match(header, end)
        if member is None:
            return None
        end = member.end()
        if member["opaque"] is not None:
            opaque = CODING_SUFFIX.sub("", member["opaque"])
            tags.append(_Tag(opaque, member["weak"] is not None))
        if len(tags) > TAGS_MAX:
            raise ClientError(
                400,
                "BAD_REQUEST",
                Phrase("at most {count} entity tags may be listed", count=TAGS_MAX),
            )
    return tags
