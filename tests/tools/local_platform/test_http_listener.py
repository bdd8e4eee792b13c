"""Request bodies: complete, or an error."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tools.local_platform.http_listener import Receive, TooLarge, read_body


def receiving(*messages: dict[str, Any]) -> Receive:
    left = iter(messages)

    async def receive() -> dict[str, Any]:
        return next(left)

    return receive


def part(body: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def test_body_in_parts_is_joined() -> None:
    receive = receiving(part(b"ab", more=True), part(b"c", more=False))

    assert asyncio.run(read_body(receive, 10)) == b"abc"


@pytest.mark.parametrize("before", [(), (part(b"ab", more=True),)])
def test_disconnect_before_the_end_of_the_body_raises_timeout_error(
    before: tuple[dict[str, Any], ...],
) -> None:
    receive = receiving(*before, {"type": "http.disconnect"})

    with pytest.raises(TimeoutError):
        asyncio.run(read_body(receive, 10))


def test_body_over_the_limit_raises_too_large_before_its_end() -> None:
    receive = receiving(part(b"abc", more=True))

    with pytest.raises(TooLarge):
        asyncio.run(read_body(receive, 2))
