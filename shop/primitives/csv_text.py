"""CSV (RFC 4180) in UTF-8 that a spreadsheet opens without executing what people typed into it."""

from __future__ import annotations

import re
from collections.abc import Iterable

Value = str | int | None

MEDIA_TYPE = "text/csv; charset=utf-8"
# Some spreadsheets take a file for UTF-8 only when it begins with it.
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

QUOTED = re.compile(r'[",\r\n]')
# Where a spreadsheet begins a cell and finds a formula, also one that splits at another separator
# (OWASP, CSV injection; the full-width forms are read as the others).
FORMULA = re.compile(r"(?:\A|(?<=[;\t\r\n]))(?=[=+\-@＝＋－＠])")


def encode(records: Iterable[Iterable[Value]]) -> bytes:
    """The records, each ended by CRLF; None is an empty field.

    Text that a spreadsheet would take for a formula begins with an apostrophe; numbers do not.
    """
    return "".join(f"{','.join(map(_field, record))}\r\n" for record in records).encode()


def _field(value: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, int):
        return str(value)
    text = FORMULA.sub("'", value)
    return '"' + text.replace('"', '""') + '"' if QUOTED.search(text) else text
