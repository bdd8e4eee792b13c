"""Composes mails from templates: plain text and HTML, in Korean and English.

The first line of a text template is the subject.  Templates are ``string.Template``; in HTML every
value is escaped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formataddr, formatdate
from functools import cache
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from functions.notify.facts import LinkFacts, OrderFacts, RefundFacts
from shop.adapters.mail_server import domain_of
from shop.one_time_links import token_of
from shop.primitives.money import in_digits
from shop.primitives.statuses import MailKind

if TYPE_CHECKING:
    from functions.notify.facts import Facts
    from shop.adapters.mail_server import Mailing
    from shop.mails import Mail

TEMPLATES = Path(__file__).parent / "templates"
# so that a server without 8BITMIME (RFC 6152) takes it too
SEVEN_BIT = SMTP.clone(cte_type="7bit")
# the pages to which links lead
PAGES = {
    MailKind.PASSWORD_RESET: "set-password",
    MailKind.INVITATION: "set-password",
    MailKind.EMAIL_VERIFICATION: "verify-email",
    MailKind.EMAIL_CHANGE: "verify-email",
}


def compose(mail: Mail, facts: Facts, mailing: Mailing) -> EmailMessage:
    """The mail of an event, whose Message-ID is always the same.

    Auto-Submitted (RFC 3834) keeps out-of-office programs from replying.
    """
    language, name = facts.about.language, mail.kind.lower()
    values = _values(mail, facts, mailing)
    text = _template(language, f"{name}.txt").substitute(values, lines=_lines(facts, "line.txt"))
    subject, _, body = text.partition("\n")
    html = {key: escape(value) for key, value in values.items()}
    content = _template(language, f"{name}.html").substitute(html, lines=_lines(facts, "line.html"))
    page = _template(language, "page.html").substitute(
        html, subject=escape(subject), content=content
    )
    message = EmailMessage(policy=SEVEN_BIT)
    message["From"] = formataddr((mailing.shop_name, mailing.sender))
    message["To"] = facts.about.email
    message["Subject"] = subject
    message["Date"] = formatdate(usegmt=True)
    message["Message-ID"] = f"<{mail.event_id}@{domain_of(mailing.sender)}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(body.lstrip("\n"))
    message.add_alternative(page, subtype="html")
    # last: earlier it would become a header of the first part only
    message["Content-Language"] = language
    return message


def money(amount_minor: int, currency: str, language: str) -> str:
    """An amount as people write it, such as ``12,000원`` or ``KRW 12,000``."""
    pattern = _phrases(language).get(currency, "${currency} ${amount}")
    return Template(pattern).substitute(amount=in_digits(amount_minor, currency), currency=currency)


def _values(mail: Mail, facts: Facts, mailing: Mailing) -> dict[str, str]:
    """The values of the placeholders, as text."""
    about = facts.about
    values = {
        "language": about.language,
        "name": about.name,
        "shop_name": mailing.shop_name,
        "shop_url": mailing.shop_url,
    }
    match about:
        case OrderFacts():
            values["total"] = money(about.total_minor, about.currency, about.language)
            values["reason"] = _phrases(about.language).get(about.reason, "")
        case RefundFacts():
            values["amount"] = money(about.amount_minor, about.currency, about.language)
        case LinkFacts():
            # behind a # it is sent to no server, and so is in no access log
            token = token_of(about.link_id, mailing.link_key)
            values["link"] = f"{mailing.shop_url}/{PAGES[mail.kind]}#token={token}"
            values["validity"] = _validity(about.minutes, about.language)
        case _:
            pass
    if isinstance(about, OrderFacts | RefundFacts):
        values["order_id"] = str(about.order_id)
        # a page of the storefront (ADR 60); /orders/{orderId} is the API
        values["order_url"] = f"{mailing.shop_url}/#/orders/{about.order_id}"
    return values


def _validity(minutes: int, language: str) -> str:
    unit, number = ("hours", minutes // 60) if minutes >= 120 else ("minutes", minutes)
    return Template(_phrases(language)[unit]).substitute(number=number)


def _lines(facts: Facts, name: str) -> str:
    """The lines of an order; their products' names are text that people typed."""
    if not isinstance(facts.about, OrderFacts):
        return ""
    about, is_html = facts.about, name.endswith(".html")
    shipping = _phrases(about.language)["SHIPPING"]
    template = _template(about.language, name)
    texts = [
        template.substitute(
            product=escape(line.product or shipping) if is_html else line.product or shipping,
            quantity=line.qty,
            amount=money(line.amount_minor, about.currency, about.language),
        ).rstrip("\n")
        for line in facts.lines
    ]
    return "\n".join(texts)


@cache
def _template(language: str, name: str) -> Template:
    return Template((TEMPLATES / language / name).read_text("utf-8"))


@cache
def _phrases(language: str) -> Mapping[str, str]:
    """Words that depend on a value: units, reasons, shipping and notations of money."""
    phrases: dict[str, str] = json.loads((TEMPLATES / language / "phrases.json").read_text("utf-8"))
    return phrases
