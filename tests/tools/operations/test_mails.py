"""``shop mail``: reads what the mail catcher has."""

from __future__ import annotations

import json
import smtplib
import threading
from collections.abc import Iterator
from email.message import EmailMessage

import pytest
from typer.testing import CliRunner

from tests.mail_server import MailServerOfTests, running_mail_server
from tools.cli import app
from tools.mail_catcher.pages import PagesServer


@pytest.fixture(scope="module")
def catcher() -> Iterator[tuple[MailServerOfTests, str]]:
    with running_mail_server() as server:
        pages = PagesServer(("127.0.0.1", 0), server.mails, server.catcher)
        thread = threading.Thread(target=pages.serve_forever, args=(0.05,))
        thread.start()
        message = EmailMessage()
        message["From"], message["To"] = "orders@shop.kr", "kim@test.kr"
        message["Subject"] = "주문"
        message.set_content("24,000원")
        with smtplib.SMTP("127.0.0.1", int(server.url.rpartition(":")[2])) as session:
            session.send_message(message)
        yield server, f"http://127.0.0.1:{pages.server_port}"
        pages.shutdown()
        thread.join()
        pages.server_close()


@pytest.mark.parametrize(("to", "count"), [("kim@test.kr", 1), ("lee@test.kr", 0)])
def test_list_has_the_mails_to_an_address(
    catcher: tuple[MailServerOfTests, str], to: str, count: int
) -> None:
    environment = {"MAIL_CATCHER_URL": catcher[1]}
    result = CliRunner().invoke(app, ["mail", "list", "--to", to, "--json"], env=environment)

    assert (result.exit_code, len(json.loads(result.stdout))) == (0, count)


def test_show_prints_the_text_of_a_mail(catcher: tuple[MailServerOfTests, str]) -> None:
    environment = {"MAIL_CATCHER_URL": catcher[1]}
    shown = CliRunner().invoke(app, ["mail", "show", "1"], env=environment)
    missing = CliRunner().invoke(app, ["mail", "show", "99"], env=environment)

    assert (shown.exit_code, "Subject: 주문" in shown.stdout) == (0, True)
    assert "24,000원" in shown.stdout
    assert (missing.exit_code, missing.stdout) == (1, "there is no mail 99\n")


def test_missing_address_is_rejected_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MAIL_CATCHER_URL", raising=False)

    result = CliRunner().invoke(app, ["mail", "list"], env={"COLUMNS": "400"})

    assert result.exit_code == 2
    assert ". .shop/operator.env" in result.stderr


def test_catcher_that_does_not_respond_is_an_error_with_its_address() -> None:
    environment = {"MAIL_CATCHER_URL": "http://127.0.0.1:9"}
    result = CliRunner().invoke(app, ["mail", "list"], env=environment)

    assert result.exit_code == 2
    assert "no mail catcher responds at http://127.0.0.1:9 " in result.stderr
