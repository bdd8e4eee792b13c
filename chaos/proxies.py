"""The run's side of the proxy process: open an edge, put a toxic on it, heal it."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from chaos.controlled_process import ControlledProcess
from chaos.toxics import Speaks, Toxic


class Proxies:
    """Starts the proxy process; use as an asynchronous context manager.  ``seed`` repeats a run."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._process = ControlledProcess("proxy", lambda _line: None)

    async def __aenter__(self) -> Proxies:
        await self._process.start(["-m", "chaos.proxy", str(self._seed)], None)
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        await self._process.stop()

    async def open(
        self, edge: str, upstream_port: int, speaks: Speaks, listen_port: int = 0
    ) -> int:
        """A new edge to a port of this machine; the port to connect to."""
        answer = await self._ask(
            "open", edge=edge, upstream_port=upstream_port, speaks=speaks, listen_port=listen_port
        )
        return int(answer["port"])

    async def put(self, edge: str, toxic: Toxic) -> None:
        """From now on, for new and existing connections; replaces one of the same kind."""
        await self._ask("put", edge=edge, toxic=toxic.as_json())

    async def heal(self, edge: str | None = None) -> None:
        """Takes the toxics off, of one edge or of all; black-holed connections are reset."""
        await self._ask("heal", edge=edge)

    async def figures(self) -> dict[str, dict[str, int]]:
        """For each edge its connections, its bytes, and how often each toxic fired."""
        answer = await self._ask("figures")
        figures: dict[str, dict[str, int]] = answer["done"]
        return figures

    async def _ask(self, do: str, **parameters: Any) -> dict[str, Any]:
        return await self._process.ask(do, **parameters)
