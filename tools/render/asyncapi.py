"""Renders AsyncAPI 3.0 of all events, and a page with emitters, consumers and data of each."""

from __future__ import annotations

from html import escape
from pathlib import Path

from events.event import ShopEvent, properties_of
from events.vocabulary import EVENTS
from shop.registry import all_specs, consumers_of
from tools.render.documents import MARK, json_text
from tools.render.events import example_of, schema_of
from tools.render.models import Schema
from tools.render.openapi import ASSETS, VERSION

DESCRIPTION = (
    "Events of msa-shop are CloudEvents 1.0 over HTTP, binary or structured. Data carries ids "
    "only: a consumer reads the rows. Delivery is at least once and unordered."
)
COLUMNS = ("Meaning", "Data", "Emitted by", "Consumed by")
CLOUD_EVENT_HEADERS: Schema = {
    "type": "object",
    "required": ["ce-specversion", "ce-id", "ce-source", "ce-type", "ce-sigkid", "ce-sig"],
    "properties": {
        "ce-specversion": {"const": "1.0"},
        "ce-id": {"type": "string", "format": "uuid", "description": "Id of the outbox row."},
        "ce-source": {"type": "string", "pattern": "^/shop/[a-z_]+$"},
        "ce-type": {"type": "string"},
        "ce-subject": {"type": "string"},
        "ce-time": {"type": "string", "format": "date-time"},
        "ce-dataschema": {"type": "string", "format": "uri"},
        "ce-partitionkey": {"type": "string"},
        "ce-traceparent": {"type": "string"},
        "ce-sigkid": {"type": "string", "description": "Id of the signing key."},
        "ce-sig": {"type": "string", "description": "Ed25519 over the event, base64url."},
    },
}


def render() -> dict[Path, str]:
    """The document as JSON and the catalogue as a page."""
    return {
        ASSETS / "asyncapi.json": json_text(document()),
        ASSETS / "asyncapi.html": page(),
    }


def document() -> Schema:
    """AsyncAPI 3.0: a channel and a message per event, an operation per emitter and consumer."""
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "msa-shop events", "version": VERSION, "description": DESCRIPTION},
        "defaultContentType": "application/json",
        "channels": {event.name: _channel(event) for event in EVENTS},
        "operations": {**_sends(), **_receives()},
        "components": {"messages": {event.name: _message(event) for event in EVENTS}},
        "x-comment": MARK,
    }


def _channel(event: type[ShopEvent]) -> Schema:
    return {
        "address": event.type,
        "title": event.name,
        "messages": {"event": {"$ref": f"#/components/messages/{event.name}"}},
    }


def _message(event: type[ShopEvent]) -> Schema:
    schema = schema_of(event)
    payload = {k: v for k, v in schema.items() if k not in ("$schema", "$id", "examples")}
    return {
        "name": event.type,
        "title": event.name,
        "summary": schema["description"],
        "contentType": "application/json",
        "headers": CLOUD_EVENT_HEADERS,
        "payload": payload,
        "examples": [{"name": event.name, "payload": example_of(event)}],
    }


def _sends() -> Schema:
    return {
        f"{spec.name}.announces.{name}": {
            "action": "send",
            "channel": {"$ref": f"#/channels/{name}"},
            "summary": f"{spec.name} emits {name}.",
        }
        for spec in all_specs()
        for name in spec.emits
    }


def _receives() -> Schema:
    return {
        f"{spec.name}.consumes.{subscription.event}": {
            "action": "receive",
            "channel": {"$ref": f"#/channels/{subscription.event}"},
            "summary": subscription.summary,
        }
        for spec in all_specs()
        for subscription in spec.subscriptions
    }


def page() -> str:
    """The event catalogue as an HTML table without scripts."""
    rows = "".join(_row(event) for event in EVENTS)
    header = "".join(f'<th scope="col">{name}</th>' for name in ("Event", *COLUMNS))
    return (
        f"<!doctype html>\n<!-- {MARK} -->\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<title>msa-shop events</title>\n"
        '<link rel="icon" href="/api-docs/favicon-32x32.png">\n'
        '<link rel="stylesheet" href="/api-docs/api-docs.css">\n</head>\n<body>\n'
        '<nav><a href="/api-docs">HTTP</a> <a href="/asyncapi" aria-current="page">Events</a> '
        '<a href="/v3/asyncapi">AsyncAPI</a></nav>\n'
        f"<main>\n<h1>Events</h1>\n<p>{escape(DESCRIPTION)} Version {VERSION}.</p>\n"
        f'<div class="events"><table>\n<thead><tr>{header}</tr></thead>\n'
        f"<tbody>\n{rows}</tbody>\n</table></div>\n</main>\n</body>\n</html>\n"
    )


def _row(event: type[ShopEvent]) -> str:
    emitters = [spec.name for spec in all_specs() if event.name in spec.emits]
    consumers = list(consumers_of(event.name)) or ["external"]
    data = [name for _, name, _ in properties_of(event)]
    link = f'<a href="{escape(event.schema_path())}"><code>{escape(event.type)}</code></a>'
    cells = [escape(str(schema_of(event)["description"])), _code(data)]
    cells += [_code(emitters), _code(consumers)]
    shown = "".join(
        f'<td data-column="{column}">{cell}</td>'
        for column, cell in zip(COLUMNS, cells, strict=True)
    )
    return f'<tr><th scope="row">{link}</th>{shown}</tr>\n'


def _code(names: list[str]) -> str:
    return ", ".join(f"<code>{escape(name)}</code>" for name in names)
