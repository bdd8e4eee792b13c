"""The code of docs/how-to/receive-webhooks.md accepts what the shop signs, and nothing else."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

from shop import webhooks
from shop.primitives.webhook_signatures import headers_of, secret_of, written

PAGE = Path(__file__).resolve().parents[2] / "docs/how-to/receive-webhooks.md"


def test_code_of_the_page_accepts_signed_messages_only() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    accepts = names["is_from_the_shop"]
    webhook_id, body, now = uuid4(), b'{"a": 1}', int(time.time())
    old, new = (secret_of(webhook_id, number, "k" * 32) for number in (1, 2))
    rotating = headers_of("id", now, body, (new, old))
    late = headers_of("id", now - 301, body, (new,))

    assert accepts(written(old), rotating, body) and accepts(written(new), rotating, body)
    assert not accepts(written(secret_of(webhook_id, 3, "k" * 32)), rotating, body)
    assert not accepts(written(new), rotating, body + b" ")
    assert not accepts(written(new), rotating | {"webhook-id": "other"}, body)
    assert not accepts(written(new), late, body)


def test_page_names_every_event_type() -> None:
    page = PAGE.read_text("utf-8")

    assert [each for each in webhooks.EVENT_TYPES if f"`{each}`" not in page] == []
