"""Starts the proxy process and controls it: opens edges, adds and removes toxics."""

from __future__ import annotations

from dataclasses import asdict

from chaos.controlled_process import ControlledProcess, JsonObject
from chaos.proxy.toxics import Protocol, Toxic


class Proxies:
    """The proxy process; use it as an asynchronous context manager.

    ``seed`` makes the random choices repeatable.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._process = ControlledProcess("proxy", _ignore_line)

    async def __aenter__(self) -> Proxies:
        await self._process.start(["-m", "chaos.proxy", str(self._seed)], None)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._process.stop()

    async def open(self, edge: str, upstream_port: int, protocol: Protocol) -> int:
        """Opens an edge to a port of this machine; returns the port to connect to."""
        reply = await self._process.call(
            "open", edge=edge, upstream_port=upstream_port, protocol=protocol
        )
        return int(reply["port"])

    async def add(self, edge: str, toxic: Toxic) -> None:
        """Applies a toxic to new and existing connections; replaces one of the same kind."""
        await self._process.call("add", edge=edge, toxic=asdict(toxic))

    async def remove_toxics(self, edge: str | None = None) -> None:
        """Removes the toxics of one edge or of all; connections in a black hole are reset."""
        await self._process.call("remove", edge=edge)

    async def metrics(self) -> dict[str, dict[str, int]]:
        """For each edge: connections, bytes, and how often each toxic was applied."""
        reply = await self._process.call("metrics")
        metrics: dict[str, dict[str, int]] = reply["edges"]
        return metrics


def _ignore_line(_line: JsonObject) -> None:
    """The proxy process prints replies only."""
