"""Sends administrative commands to Redis (RESP2, redis.io/docs): one command, one connection."""

from __future__ import annotations

import asyncio

Reply = str | int | None | list["Reply"]


class RedisError(RuntimeError):
    """Redis replied with an error."""


async def execute(port: int, *arguments: str) -> Reply:
    """The reply to one command; raises OSError without a server and RedisError for an error."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        parts = [f"*{len(arguments)}\r\n"]
        parts += [f"${len(argument.encode())}\r\n{argument}\r\n" for argument in arguments]
        writer.write("".join(parts).encode())
        await writer.drain()
        return await _read(reader)
    finally:
        writer.close()


async def _read(reader: asyncio.StreamReader) -> Reply:
    line = (await reader.readuntil(b"\r\n"))[:-2].decode()
    kind, rest = line[0], line[1:]
    if kind == "-":
        raise RedisError(rest)
    if kind == ":":
        return int(rest)
    if kind == "$":
        return None if rest == "-1" else (await reader.readexactly(int(rest) + 2))[:-2].decode()
    if kind == "*":
        return [await _read(reader) for _ in range(int(rest))]
    return rest
