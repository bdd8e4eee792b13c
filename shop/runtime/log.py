"""One JSON line per message handled, with its trace.  No tokens, secrets, e-mail or bodies."""

from __future__ import annotations

import json
import re
import sys
import traceback
from typing import Any

from shop.primitives.clock import utc_now
from shop.runtime import message_context, trace

# A traceback may quote what the database said, and that quotes rows.
PRIVATE = re.compile(r"(?m)^DETAIL:.*$|[^\s@'\"(<]+@[^\s@'\")>]+|eyJ[\w-]+\.[\w-]+\.[\w-]+")


def write(message: str, **fields: Any) -> None:
    """Writes one line to standard output; fields that are None are left out.

    The trace is that of the message which this thread handles.
    """
    line = {"at": utc_now().isoformat(), "message": message}
    message_now = message_context.current()
    if message_now is not None:
        line["trace"] = trace.id_of(message_now.traceparent) or ""
    line |= {name: value for name, value in fields.items() if value is not None}
    sys.stdout.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")
    sys.stdout.flush()


def bug(error: BaseException, **fields: Any) -> None:
    """Writes an unexpected error once, with its traceback, for us and never for the caller."""
    text = PRIVATE.sub("***", "".join(traceback.format_exception(error)))[-8000:]
    write("bug", error=type(error).__name__, traceback=text, **fields)
