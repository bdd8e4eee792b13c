"""``shop mail``: reads the mails of the mail catcher, which exists for development only."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import httpx

from tools.operations.reporting import EXIT_FOUND, EXIT_OK, show_json, show_table

TIMEOUT_SECONDS = 5.0
NOT_FOUND = 404


def run_list(catcher_url: str, *, to: str, as_json: bool) -> int:
    """Lists the mails, or those to an address, newest first; always returns 0."""
    mails = _get(catcher_url, f"/messages?to={quote(to)}").json()
    if as_json:
        show_json(mails)
        return EXIT_OK
    show_table(
        ("mail", "to", "subject", "received"),
        [(each["id"], each["to"], each["subject"], each["receivedAt"]) for each in mails],
    )
    return EXIT_OK


def run_show(catcher_url: str, mail_id: int, *, as_json: bool) -> int:
    """Shows a mail; returns 1 when there is none with this id."""
    answer = _get(catcher_url, f"/messages/{mail_id}")
    if answer.status_code == NOT_FOUND:
        print(f"there is no mail {mail_id}")
        return EXIT_FOUND
    # Any: the catcher's JSON
    mail: dict[str, Any] = answer.json()
    if as_json:
        show_json(mail)
        return EXIT_OK
    print(f"From: {mail['from']}\nTo: {mail['to']}\nSubject: {mail['subject']}\n")
    print(mail["text"])
    return EXIT_OK


def _get(catcher_url: str, path: str) -> httpx.Response:
    try:
        answer = httpx.get(catcher_url.rstrip("/") + path, timeout=TIMEOUT_SECONDS)
    except httpx.TransportError as error:
        raise ConnectionError(
            f"no mail catcher responds at {catcher_url} ({error}): start the shop, and set "
            "MAIL_CATCHER_URL to the address that it prints"
        ) from error
    if answer.status_code != NOT_FOUND:
        answer.raise_for_status()
    return answer
