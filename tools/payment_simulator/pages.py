"""The page on which a customer approves or declines a payment, as payment providers have one.

A browser gets it at ``/pay/{reference}``; its buttons post to ``/pay/{reference}/finish`` and
``/fail``, and lead back to the shop (``PAYMENT_RETURN_URL``), however often they are pressed.
"""

from __future__ import annotations

import sqlite3
from html import escape
from urllib.parse import quote

# no script, no style, no reference: the texts are those of a stranger's order
POLICY = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'"
PAGE = """<!doctype html>
<html lang="ko"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>모의 결제사 · Payment simulator</title></head>
<body><main>
<h1>모의 결제사 <span lang="en">Payment simulator</span></h1>
{content}
</main></body></html>
"""
OPEN = """<p>{amount} 결제를 승인할까요? 실제 돈은 나가지 않습니다.<br>
<span lang="en">Approve this payment of {amount}? No real money moves.</span></p>
<form method="post" action="{path}/finish"><p>
<button>승인 <span lang="en">Approve</span></button></p></form>
<form method="post" action="{path}/fail"><p>
<button>거절 <span lang="en">Decline</span></button></p></form>
"""
OVER = """<p>{amount} 결제는 끝났습니다: {status}.<br>
<span lang="en">This payment of {amount} is over: {status}.</span></p>
"""
UNKNOWN = '<p>없는 결제입니다. <span lang="en">There is no such payment.</span></p>\n'
BACK = '<p><a href="{url}">상점으로 돌아가기 <span lang="en">Back to the shop</span></a></p>\n'


def payment_page(payment: sqlite3.Row | None, return_url: str) -> str:
    """The page of a payment: open, over or, for None, unknown."""
    if payment is None:
        return PAGE.format(content=UNKNOWN)
    template = OPEN if payment["status"] == "created" else OVER
    content = template.format(
        amount=escape(f"{payment['amount_minor']:,} {payment['currency']}"),
        path=escape(f"/pay/{quote(payment['provider_ref'], safe='')}"),
        status=escape(payment["status"]),
    )
    target = page_after(payment, return_url)
    return PAGE.format(content=content + (BACK.format(url=escape(target)) if target else ""))


def page_after(payment: sqlite3.Row, return_url: str) -> str:
    """The page of the shop to which the customer returns; empty when there is none."""
    url = return_url.replace("{orderId}", quote(payment["order_id"], safe=""))
    return url.replace("{paymentId}", quote(payment["payment_id"], safe=""))
