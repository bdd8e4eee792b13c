"""Sends administrative commands to Redis (RESP2, redis.io/docs): one command, one connection."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

Reply = str | int | None | list["Reply"]


class RedisError(RuntimeError):
    """Redis replied with an error."""


async def execute(url: str, *arguments: str) -> Reply:
    """The reply to one command; raises OSError without a server and RedisError for an error.

    ``url`` has a port, and a password that needs no escapes, as that of a ``RedisServer``.
    """
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        if address.password:
            writer.write(_encode("AUTH", address.password))
            await _read(reader)
        writer.write(_encode(*arguments))
        await writer.drain()
        return await _read(reader)
    finally:
        writer.close()


def _encode(*arguments: str) -> bytes:
    parts = [f"*{len(arguments)}\r\n"]
    parts += [f"${len(argument.encode())}\r\n{argument}\r\n" for argument in arguments]
    return "".join(parts).encode()


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
