"""The payment provider with each call noted as a step: name, outcome and how long it took."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from shop.primitives import failpoints
from shop.primitives.failpoints import Failpoint
from shop.runtime.message_context import span

if TYPE_CHECKING:
    from shop.adapters.payment_provider.protocol import Provider


# what moves money or rules it out; "unknown" may mean that the provider was never reached
EXECUTING = ("charge", "cancel", "refund")
UNKNOWN = "unknown"


class InstrumentedProvider:
    """Does what the provider does."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call: Callable[..., Any] = getattr(self._provider, name)

        def watched(*arguments: Any) -> Any:
            with span(f"provider {name}", "client", step=name) as calling:
                outcome = call(*arguments)
                kind = calling.outcome = getattr(outcome, "kind", "read")
            if name in EXECUTING and kind != UNKNOWN:
                failpoints.hit(Failpoint.AFTER_PROVIDER_CALL)
            return outcome

        return watched
