"""The log: one JSON line per message, with its trace; no tokens, secrets, e-mail or bodies."""

from __future__ import annotations

import json
import re
import sys
import traceback

from shop.primitives.clock import utc_now
from shop.primitives.errors import is_out_of_resources
from shop.runtime import message_context, trace

# A traceback may quote an error of the database, which quotes rows.
PRIVATE = re.compile(r"(?m)^DETAIL:.*$|[^\s@'\"(<]+@[^\s@'\")>]+|eyJ[\w-]+\.[\w-]+\.[\w-]+")
REASON_LENGTH_MAX = 500


def write(message: str, **fields: object) -> None:
    """Writes one line to standard output; fields that are None are left out.

    The trace is that of the message that this thread handles.
    """
    line: dict[str, object] = {"at": utc_now().isoformat(), "message": message}
    current = message_context.current()
    if current is not None:
        line["trace"] = trace.id_of(current.traceparent) or ""
    line |= {name: value for name, value in fields.items() if value is not None}
    sys.stdout.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")
    sys.stdout.flush()


def unavailable(message: str, error: BaseException, **fields: object) -> None:
    """Writes that a dependency does not respond, with the class and text of the error behind it."""
    cause = error.__cause__ or error
    # some errors have no text, such as TimeoutError
    text = str(cause) or str(error)
    reason = " ".join(PRIVATE.sub("***", text).split())[:REASON_LENGTH_MAX]
    write(message, error=type(cause).__name__, reason=reason, **fields)


def unexpected(error: BaseException, **fields: object) -> None:
    """Writes an error that nothing handles, with its traceback; the caller never sees it.

    The message is ``bug`` unless the process had no memory, threads or files left.
    """
    text = PRIVATE.sub("***", "".join(traceback.format_exception(error)))[-8000:]
    message = "out of resources" if is_out_of_resources(error) else "bug"
    write(message, error=type(error).__name__, traceback=text, **fields)
