"""notify: one mail of each event, sent once as far as SMTP allows, and never lost."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest

from shop.one_time_links import token_of
from shop.runtime.config import Secret
from tests.harness import PASSWORD, Person, ShopHarness
from tests.mail_server import MailServerOfTests
from tools.mail_catcher.messages import CaughtMail

MAILS_OF_EVENTS = "select * from shop.mails order by created_at"


@pytest.fixture
def server(mail_server: MailServerOfTests) -> Iterator[MailServerOfTests]:
    yield mail_server
    mail_server.set_faults()


def address_of(person: Person) -> str:
    (row,) = person.shop.sql("select email from shop.users where user_id = %s", person.user_id)
    return row["email"]


def mails_to(server: MailServerOfTests, person: Person) -> list[CaughtMail]:
    return server.to(address_of(person))


def statuses(shop: ShopHarness) -> list[tuple[str, str | None]]:
    return [(row["status"], row["failure"]) for row in shop.sql(MAILS_OF_EVENTS)]


def make_due(shop: ShopHarness) -> None:
    shop.sql("update shop.mails set next_try_at = now() where status in "
             "('PENDING', 'SENDING', 'UNKNOWN')")  # fmt: skip


def alerts(shop: ShopHarness) -> list[dict[str, Any]]:
    return shop.sql("select kind, subject, detail from shop.alarms order by kind")


def named(person: Person, prefix: str) -> Person:
    """The person with an address to which the mail server answers as the prefix says."""
    person.shop.sql(
        "update shop.users set email = %s || email, email_key = %s || email_key "
        "where user_id = %s",
        prefix, prefix, person.user_id,
    )  # fmt: skip
    return person


# ---------------------------------------------------------------- contents


def test_paid_order_is_confirmed_with_its_lines_total_and_link(
    shop: ShopHarness, server: MailServerOfTests
) -> None:
    buyer = shop.person()

    order = buyer.paid_order(shop.product(price=12_000, name="가방 <b>"), 2)

    (mail,) = mails_to(server, buyer)
    (row,) = shop.sql(MAILS_OF_EVENTS)
    assert (row["kind"], row["subject_id"], row["status"]) == ("ORDER_PAID", order["id"], "SENT")
    assert mail.message_id == f"<{row['event_id']}@shop.kr>"
    assert (mail.sender, mail.language) == ("orders@shop.kr", "ko")
    assert mail.subject == "[Shop] 주문이 결제되었습니다"
    for content in (mail.text, mail.html):
        assert order["id"] in content
        assert "24,000원" in content
        assert f"https://shop.kr/#/orders/{order['id']}" in content
    assert "가방 <b> × 2" in mail.text
    assert "가방 &lt;b&gt;" in mail.html and "<b>" not in mail.html


def test_mail_is_in_the_language_of_the_account(
    shop: ShopHarness, server: MailServerOfTests
) -> None:
    buyer = shop.person()
    shop.sql("update shop.users set language = 'en' where user_id = %s", buyer.user_id)

    buyer.paid_order(shop.product(price=12_000))

    (mail,) = mails_to(server, buyer)
    assert (mail.language, mail.subject) == ("en", "[Shop] Your order has been paid")
    assert "Total: KRW 12,000" in mail.text


def test_cancelled_order_and_its_refund_have_a_mail_each(
    shop: ShopHarness, server: MailServerOfTests
) -> None:
    buyer = shop.person()
    order = buyer.paid_order(shop.product(price=3_000))

    buyer.patch(f"/orders/{order['id']}/cancel")
    shop.deliver_all()

    assert sorted(row["kind"] for row in shop.sql(MAILS_OF_EVENTS)) == [
        "ORDER_CANCELLED", "ORDER_PAID", "REFUND_SUCCEEDED",
    ]  # fmt: skip
    texts = {mail.subject: mail.text for mail in mails_to(server, buyer)}
    assert "고객님의 요청으로" in texts["[Shop] 주문이 취소되었습니다"]
    assert "3,000원" in texts["[Shop] 환불되었습니다"]


def test_new_customer_is_welcomed(shop: ShopHarness, server: MailServerOfTests) -> None:
    email = f"{uuid4().hex}@test.kr"
    shop.register(email)

    shop.deliver_all()

    (mail,) = server.to(email)
    assert mail.subject == "[Shop] 가입을 환영합니다"
    assert "김철수님" in mail.text


def test_reset_of_a_password_is_mailed_with_the_token_of_the_link(
    shop: ShopHarness, server: MailServerOfTests
) -> None:
    person = shop.person()
    shop.call("POST", "/auth/password-reset", {"email": address_of(person)})

    shop.deliver_all()

    (link,) = shop.sql("select link_id from shop.one_time_links")
    (mail,) = mails_to(server, person)
    token = token_of(link["link_id"], shop.secrets.link_key)
    assert f"https://shop.kr/set-password#token={token}" in mail.text
    assert re.search("(29|30)분", mail.text)
    body = {"token": token, "newPassword": "another long pass phrase"}
    assert shop.call("POST", "/auth/password-reset/confirm", body).status == 204


def test_address_without_an_account_gets_no_mail(
    shop: ShopHarness, server: MailServerOfTests
) -> None:
    email = f"{uuid4().hex}@test.kr"
    shop.call("POST", "/auth/password-reset", {"email": email})

    shop.deliver_all()

    assert server.to(email) == []
    assert statuses(shop) == [("FAILED", "OBSOLETE")]


def test_change_of_an_address_is_mailed_to_the_new_one_and_announced_to_the_old_one(
    shop: ShopHarness, server: MailServerOfTests
) -> None:
    person, new = shop.person(), f"{uuid4().hex}@test.kr"
    old = address_of(person)
    body = {"email": new, "password": PASSWORD}
    assert person.post("/users/me/email", body).status == 202
    shop.deliver_all()

    (mail,) = server.to(new)
    found = re.search("https://shop.kr/verify-email#token=([A-Za-z0-9_-]{64})", mail.text)
    assert found is not None
    token = {"token": found[1]}
    assert shop.call("POST", "/auth/email-verification/confirm", token).status == 204
    shop.deliver_all()

    assert address_of(person) == new
    subjects = [each.subject for each in server.to(old)]
    assert subjects == ["[Shop] 메일 주소 변경 요청", "[Shop] 메일 주소가 바뀌었습니다"]


def test_request_for_the_address_of_an_account_is_announced_to_the_old_one_only(
    shop: ShopHarness, server: MailServerOfTests
) -> None:
    """So that neither the answer nor a mail shows whether an address has an account."""
    person, other = shop.person(), shop.person()
    body = {"email": address_of(other), "password": PASSWORD}
    assert person.post("/users/me/email", body).status == 202

    shop.deliver_all()
    shop.deliver_all()

    (notice,) = server.to(address_of(person))
    assert notice.subject == "[Shop] 메일 주소 변경 요청"
    assert "#token=" not in notice.text
    assert server.to(address_of(other)) == []


def test_notice_of_a_change_that_was_confirmed_meanwhile_is_sent_to_the_address_before(
    shop: ShopHarness, server: MailServerOfTests
) -> None:
    person, new = shop.person(), f"{uuid4().hex}@test.kr"
    old = address_of(person)
    person.post("/users/me/email", {"email": new, "password": PASSWORD})
    (link,) = shop.sql("select link_id from shop.one_time_links where email is not null")
    token = {"token": token_of(link["link_id"], shop.secrets.link_key)}
    assert shop.call("POST", "/auth/email-verification/confirm", token).status == 204

    shop.deliver_all()

    subjects = sorted(each.subject for each in server.to(old))
    assert subjects == ["[Shop] 메일 주소 변경 요청", "[Shop] 메일 주소가 바뀌었습니다"]
    assert server.to(new) == []


def test_row_of_a_mail_has_no_address_and_no_token(
    shop: ShopHarness, server: MailServerOfTests
) -> None:
    person = shop.person()
    shop.call("POST", "/auth/password-reset", {"email": address_of(person)})
    person.paid_order(shop.product())

    stored = str(shop.sql(MAILS_OF_EVENTS))

    (link,) = shop.sql("select link_id from shop.one_time_links")
    assert len(mails_to(server, person)) == 2
    assert address_of(person) not in stored
    assert token_of(link["link_id"], shop.secrets.link_key) not in stored


# ---------------------------------------------------------------- once


def test_event_that_arrives_twice_is_one_mail(shop: ShopHarness, server: MailServerOfTests) -> None:
    buyer = shop.person()
    buyer.paid_order(shop.product())
    (paid,) = [e for e in shop.outbox(undone=False) if e["type"] == "order.paid"]

    assert shop.deliver(paid, "notify").status == 204

    assert len(mails_to(server, buyer)) == 1
    assert statuses(shop) == [("SENT", None)]


def test_mail_without_a_reply_is_sent_again_with_the_same_message_id(
    shop: ShopHarness, server: MailServerOfTests
) -> None:
    buyer = shop.person()
    server.set_faults(unanswered=1.0)
    buyer.paid_order(shop.product())
    assert statuses(shop) == [("UNKNOWN", "NO_REPLY")]

    server.set_faults()
    make_due(shop)
    assert shop.tick("notify").status == 204

    first, second = mails_to(server, buyer)
    assert first.message_id == second.message_id
    assert statuses(shop) == [("SENT", None)]


def test_mail_of_a_process_that_ended_while_sending_is_sent_after_its_lease(
    shop: ShopHarness, server: MailServerOfTests
) -> None:
    buyer = shop.person()
    buyer.paid_order(shop.product())
    shop.sql("update shop.mails set status = 'SENDING', next_try_at = now() + interval '1 minute'")
    shop.tick("notify")
    assert len(mails_to(server, buyer)) == 1

    make_due(shop)
    shop.tick("notify")

    assert len(mails_to(server, buyer)) == 2
    assert statuses(shop) == [("SENT", None)]


# ---------------------------------------------------------------- not accepted


def test_mail_that_is_not_accepted_now_is_sent_later(
    shop: ShopHarness, server: MailServerOfTests
) -> None:
    buyer = shop.person()
    server.set_faults(refused=1.0, code=451)
    buyer.paid_order(shop.product())
    (row,) = shop.sql(MAILS_OF_EVENTS)
    assert (row["status"], row["failure"], row["reply_code"]) == ("PENDING", "POSTPONED", 451)
    shop.tick("notify")  # not due yet
    assert mails_to(server, buyer) == []

    server.set_faults()
    make_due(shop)
    shop.tick("notify")

    assert len(mails_to(server, buyer)) == 1
    assert (statuses(shop), alerts(shop)) == ([("SENT", None)], [])


def test_rejected_recipient_is_final_and_alerts_an_operator_without_the_address(
    shop: ShopHarness, server: MailServerOfTests
) -> None:
    buyer = named(shop.person(), "bounce-")

    buyer.paid_order(shop.product())
    make_due(shop)
    shop.tick("notify")

    (row,) = shop.sql(MAILS_OF_EVENTS)
    assert (row["status"], row["failure"], row["reply_code"]) == ("FAILED", "REJECTED", 550)
    (alert,) = alerts(shop)
    assert (alert["kind"], alert["subject"]) == ("mail_rejected", str(row["event_id"]))
    assert "550" in alert["detail"] and "@" not in alert["detail"]
    assert mails_to(server, buyer) == []


def test_mail_that_stays_unsent_for_two_days_is_given_up_with_an_alert(
    shop: ShopHarness, server: MailServerOfTests
) -> None:
    buyer = named(shop.person(), "later-")
    buyer.paid_order(shop.product())
    assert statuses(shop) == [("PENDING", "POSTPONED")]

    shop.sql("update shop.mails set created_at = now() - interval '49 hours'")
    make_due(shop)
    shop.tick("notify")

    assert statuses(shop) == [("FAILED", "EXHAUSTED")]
    assert [alert["kind"] for alert in alerts(shop)] == ["mail_rejected"]


def test_mail_of_a_link_that_has_ended_meanwhile_is_not_sent(
    shop: ShopHarness, server: MailServerOfTests
) -> None:
    person = named(shop.person(), "later-")
    shop.call("POST", "/auth/password-reset", {"email": address_of(person)})
    shop.deliver_all()
    shop.sql("update shop.one_time_links set ended_at = now()")
    make_due(shop)

    shop.tick("notify")

    assert (statuses(shop), alerts(shop)) == ([("FAILED", "OBSOLETE")], [])


# ---------------------------------------------------------------- no server


def test_events_only_store_their_mails_while_the_server_is_not_reachable(
    make_shop: Callable[..., ShopHarness], server: MailServerOfTests
) -> None:
    down = make_shop(smtp_url=Secret("smtp://127.0.0.1:9"))
    buyers = [down.person() for _ in range(3)]
    for buyer in buyers:
        buyer.paid_order(down.product())
    assert sorted(statuses(down), key=str) == [
        ("PENDING", "UNREACHABLE"), ("PENDING", None), ("PENDING", None),
    ]  # fmt: skip
    assert sorted(row["tries"] for row in down.sql(MAILS_OF_EVENTS)) == [0, 0, 1]

    up = make_shop()
    make_due(up)
    up.tick("notify")

    assert [len(mails_to(server, buyer)) for buyer in buyers] == [1, 1, 1]
    assert statuses(up) == [("SENT", None)] * 3


def test_server_without_what_the_setting_requires_is_an_operator_alert(
    make_shop: Callable[..., ShopHarness], server: MailServerOfTests
) -> None:
    without_tls = make_shop(smtp_url=Secret(server.url.replace("smtp:", "smtp+starttls:")))
    buyer = without_tls.person()

    buyer.paid_order(without_tls.product())

    assert statuses(without_tls) == [("PENDING", "UNREACHABLE")]
    (alert,) = alerts(without_tls)
    assert alert["kind"] == "mail_server" and "STARTTLS" in alert["detail"]
    assert mails_to(server, buyer) == []
