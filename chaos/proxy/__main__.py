"""The proxy process: ``python -m chaos.proxy SEED``, controlled with JSON lines on standard input.

Without a toxic it forwards bytes unchanged.  It listens on and connects to 127.0.0.1 only.
"""

from __future__ import annotations

import asyncio
import json
import sys
from random import Random

from chaos.controlled_process import JsonObject
from chaos.proxy.connections import HOST, Edge, Link, Peer
from chaos.proxy.toxics import Toxic

BACKLOG = 512


class Control:
    """Executes the commands ``open``, ``add``, ``remove`` and ``metrics``."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._edges: dict[str, Edge] = {}
        self._servers: list[asyncio.Server] = []

    async def execute(self, command: JsonObject) -> JsonObject:
        """The result of one command; ``error`` is the reason why it failed."""
        try:
            match command["do"]:
                case "open":
                    return {"port": await self._open(command)}
                case "add":
                    self._edges[command["edge"]].add(Toxic(**command["toxic"]))
                    return {}
                case "remove":
                    name: str | None = command["edge"]
                    for edge in self._edges.values() if name is None else [self._edges[name]]:
                        edge.remove_toxics()
                    return {}
                case "metrics":
                    return {"edges": {name: edge.metrics for name, edge in self._edges.items()}}
                case unknown:
                    return {"error": f"unknown command {unknown!r}"}
        except (KeyError, ValueError, TypeError, OSError) as error:
            return {"error": f"{type(error).__name__}: {error}"}

    async def _open(self, command: JsonObject) -> int:
        name: str = command["edge"]
        random = Random(f"{self._seed} {name}")  # noqa: S311 (repeatable, not secret)
        edge = Edge(command["upstream_port"], command["protocol"], random)
        server = await asyncio.get_running_loop().create_server(
            lambda: Peer(Link(edge), is_client=True), HOST, 0, backlog=BACKLOG
        )
        self._servers.append(server)
        self._edges[name] = edge
        port: int = server.sockets[0].getsockname()[1]
        return port


async def serve(seed: int) -> None:
    """Executes commands until standard input is closed, which happens when the run exits."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    control = Control(seed)
    while line := await reader.readline():
        command: JsonObject = json.loads(line)
        reply = {"id": command["id"], **await control.execute(command)}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
