"""Notices: one mail of each event, in the customer's language, whose links work once."""

from __future__ import annotations

import re

import httpx

from tools.e2e.accounts import Account, Credentials, log_in
from tools.e2e.client import Call, new_key
from tools.e2e.context import PASSWORD, ScenarioContext, expect, unique
from tools.e2e.groups.accounts import give_role, present_code
from tools.e2e.mails import Mail
from tools.e2e.scenario import Scenario

NEW_PASSWORD = f"{PASSWORD} replaced"
LINK = re.compile(r"#token=([A-Za-z0-9_-]+)")
ENGLISH = "en-US,en;q=0.9,ko;q=0.5"
KOREAN = "ko-KR,ko;q=0.9,en;q=0.8"
# Markup, a placeholder of templates, and what would end an attribute.
HOSTILE = """</p><script>alert(1)</script>"'${link}&amp;"""


def new_customer_is_welcomed_in_the_language_of_the_request(context: ScenarioContext) -> None:
    """Accept-Language decides, and a mail is plain text and HTML."""
    for accept_language, language, subject in (
        (ENGLISH, "en", "Welcome"),
        (KOREAN, "ko", "가입을 환영합니다"),
    ):
        account, mail = _welcomed_customer(context, accept_language=accept_language)
        _check(context, mail, f"{language} welcome", language, account.name)
        context.check.that(f"it has the {language} subject", subject in mail.subject, mail.subject)


def order_and_its_refund_have_one_mail_each(context: ScenarioContext) -> None:
    """Paid, cancelled and refunded; the profile's language applies from its change on."""
    account, _ = _welcomed_customer(context, accept_language=ENGLISH)
    product = context.create_product(price=12_000, stock=10)
    order = context.place_paid_order(account, (product["id"], 2))
    paid = _wait_for(context, account.email, 2)[1:]
    for mail in paid:
        _check(context, mail, "paid", "en", order["id"], product["name"], "KRW 24,000")
    etag = expect(context.get("/users/me", account), 200).headers["ETag"]
    change = context.write("PATCH", "/users/me", {"language": "ko"}, account, if_match=etag)
    context.check.status("the profile's language is changed", change, 200)
    expect(context.write("PATCH", f"/orders/{order['id']}/cancel", None, account), 200)
    context.wait_for_final_status(account, order["id"])
    later = {
        mail.subject.split("] ")[-1]: mail for mail in _wait_for(context, account.email, 4)[2:]
    }
    expected = ["주문이 취소되었습니다", "환불되었습니다"]
    context.check.equal("a cancellation and a refund follow", sorted(later), expected)
    for mail in later.values():
        _check(context, mail, mail.subject, "ko", order["id"], account.name)
    context.check.that("with the amount", "24,000원" in later[expected[1]].text, later)


def password_is_reset_once_by_the_mailed_link(context: ScenarioContext) -> None:
    """An address without an account gets no mail; the link sets one password."""
    (account, _), unknown = _welcomed_customer(context), f"e2e-{unique()}@example.com"
    for email in (unknown, account.email):
        call = Call("POST", "/auth/password-reset", json={"email": email})
        expect(context.send_once(call), 202)
    mail = _wait_for(context, account.email, 2)[-1]
    confirm = _confirmation("/auth/password-reset/confirm", mail, newPassword=NEW_PASSWORD)
    context.check.status("its link sets a password: 204", context.send_once(confirm), 204)
    _wait_for(context, account.email, 3)
    session = log_in(context.run.client, Credentials(account.email, NEW_PASSWORD))
    context.check.equal("which logs in", session["tokenType"], "Bearer")
    context.check.problem("a second use answers 403", context.send_once(confirm), 403)
    context.check.equal("the other address gets no mail", context.mails_to(unknown), [])


def address_is_verified_and_changed_by_mailed_links(context: ScenarioContext) -> None:
    """The new address gets the link; the one before is informed of the request and the change."""
    account, _ = _welcomed_customer(context)
    token = account.token()
    expect(context.send_once(Call("POST", "/users/me/email-verification", token=token)), 202)
    mail = _wait_for(context, account.email, 2)[-1]
    path = "/auth/email-verification/confirm"
    verified = context.send_once(_confirmation(path, mail))
    context.check.status("the link verifies the address: 204", verified, 204)
    me = expect(context.send(Call("GET", "/users/me", token=token)), 200).json()
    context.check.that("it is verified", me["emailVerified"], me)
    new = f"e2e-{unique()}@example.com"
    body = {"email": new, "password": PASSWORD}
    expect(context.send_once(Call("POST", "/users/me/email", json=body, token=token)), 202)
    (link,) = _wait_for(context, new, 1)
    asked = _wait_for(context, account.email, 3)[-1]
    context.check.that("the old one gets no link", LINK.search(asked.text) is None, asked)
    context.check.status(
        "the new address's link: 204", context.send_once(_confirmation(path, link)), 204
    )
    session = log_in(context.run.client, Credentials(new, PASSWORD))
    context.check.equal("the new address logs in", session["tokenType"], "Bearer")
    _wait_for(context, account.email, 4)


def invited_operator_sets_a_password_by_the_mailed_link(context: ScenarioContext) -> None:
    """The account has no password before; its language is asked for."""
    email = f"e2e-{unique()}@example.com"
    body = {"email": email, "name": "Invited", "role": "staff", "language": "en"}
    expect(context.write("POST", "/admin/users", body, context.admin()), 201)
    (mail,) = _wait_for(context, email, 1)
    _check(context, mail, "invitation", "en", "Invited")
    confirm = _confirmation("/auth/password-reset/confirm", mail, newPassword=NEW_PASSWORD)
    context.check.status("its link sets one: 204", context.send_once(confirm), 204)
    session = log_in(context.run.client, Credentials(email, NEW_PASSWORD))
    context.check.equal("and it logs in", session["tokenType"], "Bearer")


def changes_of_log_in_are_mailed(context: ScenarioContext) -> None:
    """A second factor that is set up, used and removed has one mail of each, in the language."""
    account, _ = _welcomed_customer(context, accept_language=ENGLISH)
    give_role(context, account, "support")
    body = {"email": account.email, "password": PASSWORD}

    def send(step: str, code: str = "") -> httpx.Response:
        sent = {**body, "code": code} if code else body
        return context.send_once(Call("POST", f"/auth/second-factor{step}", json=sent))

    secret = expect(send(""), 201).json()["secret"]
    codes = expect(send("/confirm", present_code(secret)), 200).json()["recoveryCodes"]
    _wait_for(context, account.email, 2)
    codes = expect(send("/recovery-codes", codes[0]), 200).json()["recoveryCodes"]
    _wait_for(context, account.email, 4)
    expect(send("/remove", codes[0]), 204)
    mails = _wait_for(context, account.email, 6)[1:]
    subjects = sorted(mail.subject.split("] ")[-1] for mail in mails)
    expected = [
        "A recovery code was used",
        "A recovery code was used",
        "The second factor of your account was removed",
        "You have new recovery codes",
        "Your account has a second factor",
    ]
    context.check.equal("each change has a mail", subjects, expected)
    for mail in mails:
        _check(context, mail, mail.subject, "en", account.name)
        context.check.that("without a code", not any(code in mail.text for code in codes), mail)


def names_in_mails_are_text(context: ScenarioContext) -> None:
    """Markup, placeholders and line breaks in names reach no HTML and no header."""
    account = context.new_customer(name=HOSTILE)
    product = context.create_product(price=500, stock=10, name=HOSTILE)
    context.place_paid_order(account, (product["id"], 1))
    for mail in _wait_for(context, account.email, 2):
        context.check.that("the text has the name", account.name in mail.text, mail.text)
        context.check.that("the HTML has no script", "<script" not in mail.html, mail.html)
        context.check.that("but its text", "&lt;script&gt;" in mail.html, mail.html)
    body = {
        "email": f"e2e-{unique()}@example.com",
        "password": PASSWORD,
        "name": "Kim\r\nBcc: lee@example.com",
    }
    broken = context.send_once(Call("POST", "/users", json=body, key=new_key()))
    context.check.problem("a name with a line break answers 422", broken, 422)


def _welcomed_customer(
    context: ScenarioContext, *, accept_language: str = KOREAN
) -> tuple[Account, Mail]:
    """A new customer and the first mail; without waiting for it a later mail may overtake it."""
    account = context.new_customer(accept_language=accept_language)
    (mail,) = _wait_for(context, account.email, 1)
    return account, mail


def _wait_for(context: ScenarioContext, address: str, count: int) -> list[Mail]:
    """The mails to an address once ``count`` are there; checks that there are no others."""
    mails = context.poll(lambda: context.mails_to(address), lambda found: len(found) >= count)
    subjects = [mail.subject for mail in mails]
    context.check.equal(f"mail {count} arrives, and no other: {subjects}", len(mails), count)
    return mails


def _check(context: ScenarioContext, mail: Mail, title: str, language: str, *contents: str) -> None:
    context.check.equal(f"the {title} mail is in {language}", mail.language, language)
    for content in contents:
        both = content in mail.text and content in mail.html
        context.check.that(f"its text and HTML have {content}", both, mail)


def _confirmation(path: str, mail: Mail, **fields: str) -> Call:
    """The request that the page behind a mail's link sends; LookupError without a link."""
    found = LINK.search(mail.text)
    if found is None or found[1] not in mail.html:
        raise LookupError(f"there is no link in both parts of {mail.subject}")
    return Call("POST", path, json={"token": found[1], **fields})


SCENARIOS = (
    Scenario(new_customer_is_welcomed_in_the_language_of_the_request, needs=("mail catcher",)),
    Scenario(order_and_its_refund_have_one_mail_each, needs=("mail catcher", "staff")),
    Scenario(password_is_reset_once_by_the_mailed_link, needs=("mail catcher",)),
    Scenario(address_is_verified_and_changed_by_mailed_links, needs=("mail catcher",)),
    Scenario(invited_operator_sets_a_password_by_the_mailed_link, needs=("mail catcher", "admin")),
    Scenario(changes_of_log_in_are_mailed, needs=("mail catcher", "admin")),
    Scenario(names_in_mails_are_text, needs=("mail catcher", "staff")),
)
