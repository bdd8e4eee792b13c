"""The receipt of an order, as JSON and as a page to print.

The page has no script and loads nothing.  Its words are in ``receipt_words_<language>.json``; every
value is escaped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from shop.orders import queries
from shop.primitives.money import in_digits

if TYPE_CHECKING:
    from shop.orders.queries import OrderView
    from shop.orders.receipts import CollectedPayment, MadeRefund, ReceiptItem

Document = dict[str, Any]  # Any: JSON

PAGE = "text/html; charset=utf-8"
STYLE = (
    "body{font:14px/1.5 sans-serif;max-width:44em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse;width:100%;margin:1em 0}"
    "th,td{border-bottom:1px solid #999;padding:.3em .5em;text-align:left}"
    "td.n{text-align:right;white-space:nowrap}"
)
STYLE_HASH = "sha256-zlmalcpZOUdn5aAzn2X3p+UG952YRAP6/DYdpNxhe30="
PAGE_HEADERS: Mapping[str, str] = {
    "content-security-policy": (
        f"default-src 'none'; style-src '{STYLE_HASH}'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "vary": "Accept, Accept-Language",
}
COLUMNS = ("line", "vatPercent", "vat", "amount")
QUALITY = re.compile(r"q\s*=\s*([01](?:\.[0-9]{0,3})?)")


def represent(
    order: OrderView,
    items: Sequence[ReceiptItem],
    payments: Sequence[CollectedPayment],
    refunds: Sequence[MadeRefund],
    *,
    seller: tuple[str | None, str | None],
) -> Document:
    """The receipt as the JSON object of the HTTP contract; ``seller`` is name and number."""
    shown = queries.represent(order)
    lines: Any = shown["priceLines"]
    parts = [line["vatAmount"] for line in lines]
    name, number = seller
    return {
        "orderId": shown["id"],
        "status": shown["status"],
        "createdAt": shown["createdAt"],
        "seller": {"name": name, "registrationNumber": number},
        "currency": shown["currency"],
        "items": [_item(each) for each in items],
        "priceLines": lines,
        "totalAmount": shown["totalAmount"],
        "vatAmount": None if None in parts else sum(parts),
        "payments": [
            {
                "id": str(each.payment_id),
                "paymentMethod": each.payment_method,
                "amount": each.amount_minor,
                "paidAt": each.paid_at.isoformat(),
            }
            for each in payments
        ],
        "paidAmount": sum(each.amount_minor for each in payments),
        "refunds": [
            {
                "id": str(each.refund_id),
                "amount": each.amount_minor,
                "refundedAt": each.refunded_at.isoformat(),
            }
            for each in refunds
        ],
        "refundedAmount": sum(each.amount_minor for each in refunds),
    }


def prefers_page(accept: str) -> bool:
    """Whether an Accept header prefers text/html to JSON; equal weights do when HTML is first."""
    weights: dict[str, float] = {}
    for entry in accept.lower().split(","):
        media_type, *parameters = (part.strip() for part in entry.split(";"))
        quality = next((match[1] for match in map(QUALITY.fullmatch, parameters) if match), "1")
        weights.setdefault(media_type, float(quality))
    html, of_json = weights.get("text/html", 0.0), weights.get("application/json", 0.0)
    if html != of_json or not html:
        return html > of_json
    return [*weights].index("text/html") < [*weights].index("application/json")


def page(receipt: Document, language: str, *, time_zone: str) -> bytes:
    """The receipt as HTML, with times of a time zone."""
    words, zone = _words(language), ZoneInfo(time_zone)
    title = escape(words["title"] if receipt["payments"] else words["unpaid"])
    about = (
        f"{words['order']} {receipt['orderId']}",
        _moment(receipt["createdAt"], zone),
        _seller(receipt["seller"], words),
    )
    lines = "".join(_line(line, receipt, words) for line in receipt["priceLines"])
    heads = "".join(f"<th>{escape(words[name])}</th>" for name in COLUMNS)
    return (
        f'<!doctype html><html lang="{language}"><head><meta charset="utf-8">'
        f"<title>{title}</title><style>{STYLE}</style></head><body><h1>{title}</h1>"
        + "".join(f"<p>{escape(text)}</p>" for text in about if text)
        + f"<table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>"
        f"<table><tbody>{_sums(receipt, words, zone)}</tbody></table></body></html>"
    ).encode()


def _sums(receipt: Document, words: Mapping[str, str], zone: ZoneInfo) -> str:
    """The total, its VAT, what was paid and what was given back, as rows."""
    rows = [(words["total"], receipt["totalAmount"])]
    if receipt["vatAmount"] is not None:
        rows.append((words["vatOfTotal"], receipt["vatAmount"]))
    for paid in receipt["payments"]:
        method = f"{words['payment']} {paid['paymentMethod']}"
        rows.append((f"{method} {_moment(paid['paidAt'], zone)}", paid["amount"]))
    for refund in receipt["refunds"]:
        when = _moment(refund["refundedAt"], zone)
        rows.append((f"{words['refund']} {when}", -refund["amount"]))
    return "".join(_row(label, _money(amount, receipt)) for label, amount in rows)


def _line(line: Document, receipt: Document, words: Mapping[str, str]) -> str:
    has_vat = line["vatAmount"] is not None
    rate = f"{line['vatPercent']:g} %" if has_vat else ""
    vat = _money(line["vatAmount"], receipt) if has_vat else ""
    return _row(_label(line, receipt, words), rate, vat, _money(line["amount"], receipt))


def _row(label: str, *cells: str) -> str:
    numbers = "".join(f'<td class="n">{escape(text)}</td>' for text in cells)
    return f"<tr><td>{escape(label)}</td>{numbers}</tr>"


def _money(amount_minor: int, receipt: Document) -> str:
    return f"{in_digits(amount_minor, receipt['currency'])} {receipt['currency']}"


def _moment(text: str, zone: ZoneInfo) -> str:
    return datetime.fromisoformat(text).astimezone(zone).strftime("%Y-%m-%d %H:%M")


def _item(item: ReceiptItem) -> Document:
    return {
        "productId": item.product_id,
        "name": item.name,
        "quantity": item.qty,
        "unitPrice": item.unit_price_minor,
        "lineAmount": item.qty * item.unit_price_minor,
    }


def _label(line: Document, receipt: Document, words: Mapping[str, str]) -> str:
    """The product of a line, or what else it is for."""
    found = [item for item in receipt["items"] if item["productId"] == line["productId"]]
    if not found:
        return words[line["kind"]]
    (item,) = found
    if line["kind"] == "GOODS":
        return f"{item['name']} × {item['quantity']}"
    return f"{words[line['kind']]}: {item['name']}"


def _seller(seller: Document, words: Mapping[str, str]) -> str:
    number = seller["registrationNumber"]
    registered = f"{words['registrationNumber']} {number}" if number else ""
    return " · ".join(text for text in (seller["name"], registered) if text)


@cache
def _words(language: str) -> dict[str, str]:
    path = Path(__file__).with_name(f"receipt_words_{language}.json")
    words: dict[str, str] = json.loads(path.read_text("utf-8"))
    return words
