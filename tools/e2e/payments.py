"""The customer's part at the payment simulator: what a payment requires before it is collected."""

from __future__ import annotations

from urllib.parse import urlsplit

import httpx

from tools.e2e.client import JsonObject, RetriesExhausted

TIMEOUT_SECONDS = 10.0


class PaymentPages:
    """The simulator at ``url``, as this machine reaches it: the shop may use another address."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url.rstrip("/"), timeout=TIMEOUT_SECONDS)

    def act(self, action: JsonObject, step: str) -> tuple[int, str]:
        """``finish``, ``fail`` or ``deposit``; the status, and the token that confirms it.

        Raises RetriesExhausted when the simulator does not respond.
        """
        path = f"{urlsplit(str(action['url'])).path}/{step}"
        try:
            response = self._http.post(path)
        except httpx.HTTPError as error:
            url = self._http.base_url
            raise RetriesExhausted(f"the simulator at {url} does not respond: {error}") from error
        return response.status_code, str(response.json().get("token", ""))
