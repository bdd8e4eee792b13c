"""A body is whole or it is not taken."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tools.local_platform.http_listener import TooLarge, read_body


def parts(*messages: dict[str, Any]) -> Any:
    left = iter(messages)

    async def receive() -> dict[str, Any]:
        return next(left)

    return receive


def part(body: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def test_a_body_in_parts_is_put_together() -> None:
    receive = parts(part(b"ab", more=True), part(b"c", more=False))

    assert asyncio.run(read_body(receive, 10)) == b"abc"


@pytest.mark.parametrize("before", [(), (part(b"ab", more=True),)])
def test_half_a_body_does_not_pass_for_a_whole_one(before: tuple[dict[str, Any], ...]) -> None:
    receive = parts(*before, {"type": "http.disconnect"})

    with pytest.raises(TimeoutError):
        asyncio.run(read_body(receive, 10))


def test_a_long_body_is_refused_before_its_end() -> None:
    receive = parts(part(b"abc", more=True))

    with pytest.raises(TooLarge):
        asyncio.run(read_body(receive, 2))
