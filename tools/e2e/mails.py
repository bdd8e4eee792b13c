"""The mails that the shop has sent in a run, as the mail catcher shows them."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

import httpx

from tools.e2e.client import JsonObject, RetriesExhausted

TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class Mail:
    """One mail; ``language`` is its Content-Language."""

    message_id: str
    to: str
    subject: str
    language: str
    text: str
    html: str


class MailCatcher:
    """The mail catcher at ``url``; RetriesExhausted when it does not respond."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url.rstrip("/"), timeout=TIMEOUT_SECONDS)

    def mails_to(self, address: str) -> list[Mail]:
        """The mails to an address, oldest first.

        A mail whose reply was lost is sent again; copies, which have its Message-ID, are left out.
        """
        found: dict[str, Mail] = {}
        for each in reversed(self._get(f"/messages?to={quote(address)}").json()):
            if each["messageId"] not in found:
                found[each["messageId"]] = _mail(self._get(f"/messages/{each['id']}").json())
        return list(found.values())

    def _get(self, path: str) -> httpx.Response:
        try:
            return self._http.get(path).raise_for_status()
        except httpx.HTTPError as error:
            url = self._http.base_url
            raise RetriesExhausted(
                f"the mail catcher at {url} does not respond: {error}"
            ) from error


def _mail(document: JsonObject) -> Mail:
    return Mail(
        message_id=document["messageId"],
        to=document["to"],
        subject=document["subject"],
        language=document["language"],
        text=document["text"],
        html=document["html"],
    )
