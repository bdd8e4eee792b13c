"""Strict JSON (RFC 8259, I-JSON RFC 7493): one document, UTF-8, no duplicate names.

The standard parser accepts documents that different parsers read differently; ``read`` rejects
them.  ``write`` has one result for each value, so a signature over the bytes stays valid when a
broker parses an event and serialises it again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NoReturn, TypeGuard

from events.errors import Malformed

DEPTH_MAX = 64


def read(document: bytes) -> object:
    """The JSON value in ``document``.

    Raises Malformed 400 for: another encoding, a byte-order mark, duplicate names,
    NaN and Infinity, numbers beyond double or 4300 digits, lone surrogates, nesting over 64 deep.
    """
    try:
        value = json.loads(
            document.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_reject_constant,
            parse_float=_finite,
        )
        if document.count(b"[") + document.count(b"{") > DEPTH_MAX:
            _reject_deep(value)
        if b"\\ud" in document or b"\\uD" in document:
            write(value)  # a lone surrogate cannot be written as UTF-8
    except Malformed:
        raise
    except (ValueError, RecursionError) as error:
        raise Malformed(400, "the body is not valid JSON") from error
    return value


def write(value: object) -> bytes:
    """``value`` in canonical form: sorted names, no white space, UTF-8."""
    text = json.dumps(
        value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
    )
    return text.encode("utf-8")


def _reject_deep(value: object) -> None:
    level: list[object] = [value]
    for _ in range(DEPTH_MAX + 1):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return
    raise Malformed(400, f"JSON may be nested {DEPTH_MAX} deep")


def _children(value: object) -> Iterable[object]:
    if is_object(value):
        return value.values()
    return value if _is_array(value) else ()


def is_object(value: object) -> TypeGuard[dict[str, object]]:
    """Whether a JSON value is an object."""
    return isinstance(value, dict)


def _is_array(value: object) -> TypeGuard[list[object]]:
    return isinstance(value, list)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Malformed(400, "a JSON object has a duplicate name")
    return members


def _reject_constant(_name: str) -> NoReturn:
    raise Malformed(400, "NaN and Infinity are not JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise Malformed(400, "a JSON number is out of range")
    return value
