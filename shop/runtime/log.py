"""One JSON line per message handled.  No tokens, no secrets, no e-mail, no bodies."""

from __future__ import annotations

import json
import sys
import traceback
from typing import Any

from shop.clock import utc_now


def write(message: str, **fields: Any) -> None:
    """Writes one line to standard output; fields that are None are left out."""
    line = {"at": utc_now().isoformat(), "message": message}
    line |= {name: value for name, value in fields.items() if value is not None}
    sys.stdout.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")
    sys.stdout.flush()


def bug(error: BaseException, **fields: Any) -> None:
    """Writes an unexpected error once, with its traceback, for us and never for the caller."""
    text = "".join(traceback.format_exception(error))[-8000:]
    write("bug", error=type(error).__name__, traceback=text, **fields)
