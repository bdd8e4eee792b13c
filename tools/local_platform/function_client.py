"""What broker and clock need of the functions: to send them a message, wherever they run."""

from __future__ import annotations

from typing import Protocol

from tools.local_platform.http_messages import HttpRequest, HttpResponse


class FunctionClient(Protocol):
    """A way to the functions by name: the activator's processes, or addresses that stand fast."""

    async def send(self, function: str, message: HttpRequest) -> HttpResponse:
        """The function's answer, or the platform's own 502, 503 or 504."""
        ...

    def processes_max(self, function: str) -> int:
        """How many processes of a function there may be."""
        ...
