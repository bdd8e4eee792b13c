"""Templates of mails: every kind in every language, and values that are no markup."""

from __future__ import annotations

from email.message import EmailMessage
from uuid import UUID

import pytest

from functions.notify.facts import Facts, Line, LinkFacts, OrderFacts, Recipient, RefundFacts
from functions.notify.messages import TEMPLATES, compose, money
from shop.adapters.mail_server import Mailing, SendOutcome
from shop.mails import Mail
from shop.primitives.languages import LANGUAGES
from shop.primitives.statuses import CancelReason, MailKind

ID = UUID("01a20646-999e-7e90-a7f9-d57a3f42295e")
NAME = "Kim & <i>Lee</i>"


class NoServer:
    def send(self, message: EmailMessage) -> SendOutcome:
        raise AssertionError(message)


MAILING = Mailing(
    server=NoServer(),
    sender="orders@shop.kr",
    shop_name="A & B",
    shop_url="https://shop.kr",
    link_key="k" * 32,
)


def facts_of(kind: MailKind, language: str, reason: str = "USER") -> Facts:
    to = ("kim@test.kr", NAME, language)
    match kind:
        case MailKind.ORDER_PAID | MailKind.ORDER_CANCELLED:
            lines = (Line(("가방 <b>", 2, 24_000)), Line(("의자", 1, 5_000)))
            return Facts(OrderFacts((*to, ID, 29_000, "KRW", reason)), lines)
        case MailKind.REFUND_SUCCEEDED:
            return Facts(RefundFacts((*to, ID, 1_234_567, "USD")))
        case MailKind.PASSWORD_RESET | MailKind.INVITATION:
            return Facts(LinkFacts((*to, ID, 30 if kind == MailKind.PASSWORD_RESET else 4_320)))
        case MailKind.EMAIL_VERIFICATION | MailKind.EMAIL_CHANGE:
            return Facts(LinkFacts((*to, ID, 1_440)))
        case (
            MailKind.USER_REGISTERED
            | MailKind.EMAIL_CHANGE_STARTED
            | MailKind.EMAIL_CHANGED
            | MailKind.PASSWORD_CHANGED
            | MailKind.SECOND_FACTOR_ENABLED
            | MailKind.SECOND_FACTOR_REMOVED
            | MailKind.RECOVERY_CODES_RENEWED
            | MailKind.RECOVERY_CODE_USED
        ):
            return Facts(Recipient(to))


def composed(kind: MailKind, language: str, reason: str = "USER") -> tuple[EmailMessage, str, str]:
    mail = Mail((ID, kind.value, str(ID), False))
    message = compose(mail, facts_of(kind, language, reason), MAILING)
    plain, html = message.get_body(("plain",)), message.get_body(("html",))
    assert plain is not None and html is not None
    return message, plain.get_content(), html.get_content()


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", MailKind)
def test_every_mail_has_a_subject_text_and_escaped_html(kind: MailKind, language: str) -> None:
    message, text, html = composed(kind, language)

    assert message["Subject"].startswith("[A & B] ") and len(message["Subject"]) > 10
    assert message["Content-Language"] == language
    assert message["Message-ID"] == f"<{ID}@shop.kr>"
    assert message["Auto-Submitted"] == "auto-generated"
    assert NAME in text and "$" not in text and "$" not in html
    assert "Kim &amp; &lt;i&gt;Lee" in html and "<i>" not in html
    assert f'lang="{language}"' in html
    assert message.as_bytes().isascii()


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("reason", CancelReason)
def test_every_reason_of_a_cancellation_has_a_sentence(reason: CancelReason, language: str) -> None:
    with_reason = composed(MailKind.ORDER_CANCELLED, language, reason.value)[1]

    assert len(with_reason) > len(composed(MailKind.ORDER_CANCELLED, language, "")[1]) + 10


def test_both_languages_have_the_same_templates() -> None:
    names = [sorted(path.name for path in (TEMPLATES / each).iterdir()) for each in LANGUAGES]

    assert names[0] == names[1]


@pytest.mark.parametrize(
    ("amount_minor", "currency", "language", "expected"),
    [
        (12_000, "KRW", "ko", "12,000원"),
        (12_000, "KRW", "en", "KRW 12,000"),
        (123_456, "USD", "ko", "USD 1,234.56"),
        (5, "USD", "en", "USD 0.05"),
        (1_234_567, "KWD", "en", "KWD 1,234.567"),
    ],
)
def test_amounts_are_written_in_the_units_of_their_currency(
    amount_minor: int, currency: str, language: str, expected: str
) -> None:
    assert money(amount_minor, currency, language) == expected
