"""A word with Redis as its administrator: one command, one answer (RESP2, redis.io/docs)."""

from __future__ import annotations

import asyncio

Reply = str | int | None | list["Reply"]


class RedisRefused(RuntimeError):
    """Redis answered with an error."""


async def ask(port: int, *words: str) -> Reply:
    """The answer to one command; raises OSError when nobody is there, RedisRefused for an error."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        parts = [f"*{len(words)}\r\n"]
        parts += [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
        writer.write("".join(parts).encode())
        await writer.drain()
        return await _read(reader)
    finally:
        writer.close()


async def _read(reader: asyncio.StreamReader) -> Reply:
    line = (await reader.readuntil(b"\r\n"))[:-2].decode()
    kind, rest = line[0], line[1:]
    if kind == "-":
        raise RedisRefused(rest)
    if kind == ":":
        return int(rest)
    if kind == "$":
        return None if rest == "-1" else (await reader.readexactly(int(rest) + 2))[:-2].decode()
    if kind == "*":
        return [await _read(reader) for _ in range(int(rest))]
    return rest
