"""The client of the mail server, against real SMTP servers and servers that do not respond."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from functools import partial
from pathlib import Path
from time import sleep
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from shop.adapters.mail_server import MailServer, SendOutcome
from tests.certificates import write_self_signed
from tools.local_platform.servers import free_port

USER, PASSWORD = "shop@shop.kr", "p:ss/w@rd"
CREDENTIALS = "shop%40shop.kr:p%3Ass%2Fw%40rd@"
BYTE_SECONDS = 0.02
SENT = SendOutcome("sent")


@dataclass
class Inbox:
    """Accepts mails, or replies as a test says."""

    mail_reply: str = "250 OK"
    rcpt_reply: str = "250 OK"
    data_reply: str = "250 OK"
    received: list[str] = field(default_factory=list[str])

    async def handle_MAIL(  # noqa: N802 (aiosmtpd's name)
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _: list[str]
    ) -> str:
        envelope.mail_from = address
        return self.mail_reply

    async def handle_RCPT(  # noqa: N802 (aiosmtpd's name)
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _: list[str]
    ) -> str:
        if self.rcpt_reply.startswith("25"):
            envelope.rcpt_tos.append(address)
        return self.rcpt_reply

    async def handle_DATA(  # noqa: N802 (aiosmtpd's name)
        self, _server: SMTP, _session: Session, envelope: Envelope
    ) -> str:
        if self.data_reply.startswith("25"):
            self.received += envelope.rcpt_tos
        return self.data_reply


@contextmanager
def smtp(inbox: Inbox, **options: Any) -> Generator[int]:
    """An SMTP server with aiosmtpd's options while the block runs; yields its port."""
    server = Controller(inbox, hostname="127.0.0.1", port=free_port(), **options)
    server.start()
    try:
        yield server.port
    finally:
        server.stop()


def context_of(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A certificate of localhost that clients of the test trust."""
    file = write_self_signed(tmp_path / "server.pem", "localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    return file


def send(url: str, *, seconds_max: float = 10.0) -> SendOutcome:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "no-reply@shop.kr", "kim@test.kr", "주문"
    message.set_content("24,000원")
    return MailServer(url, seconds_max).send(message)


def with_password(_server: SMTP, _session: Session, _envelope: Envelope, _: str, data: Any) -> Any:
    assert isinstance(data, LoginPassword)
    is_right = (data.login, data.password) == (USER.encode(), PASSWORD.encode())
    return AuthResult(success=is_right, handled=is_right)


# ---------------------------------------------------------------- TLS and log-in


def test_mail_is_sent_over_tls_from_the_first_byte(certificate: Path) -> None:
    inbox = Inbox()
    with smtp(inbox, ssl_context=context_of(certificate)) as port:
        assert send(f"smtps://localhost:{port}") == SENT

    assert inbox.received == ["kim@test.kr"]


def test_mail_is_sent_after_starttls_to_a_server_that_requires_it(certificate: Path) -> None:
    inbox = Inbox()
    with smtp(inbox, tls_context=context_of(certificate), require_starttls=True) as port:
        assert send(f"smtp+starttls://localhost:{port}") == SENT
        assert send(f"smtp://localhost:{port}").kind == "unreachable"

    assert inbox.received == ["kim@test.kr"]


@pytest.mark.parametrize(
    ("credentials", "expected"),
    [
        (CREDENTIALS, SENT),
        ("shop%40shop.kr:wrong@", SendOutcome("unreachable", 535)),
        ("", SendOutcome("unreachable", 530)),
    ],
)
def test_user_logs_in_after_starttls(
    certificate: Path, credentials: str, expected: SendOutcome
) -> None:
    inbox = Inbox()
    options = {"authenticator": with_password, "auth_required": True}
    with smtp(inbox, tls_context=context_of(certificate), **options) as port:
        assert send(f"smtp+starttls://{credentials}localhost:{port}") == expected

    assert inbox.received == (["kim@test.kr"] if expected == SENT else [])


def test_server_without_starttls_gets_neither_mail_nor_password() -> None:
    inbox = Inbox()
    with smtp(inbox) as port:
        outcome = send(f"smtp+starttls://{CREDENTIALS}localhost:{port}")

    assert (outcome.kind, inbox.received) == ("unreachable", [])
    assert "STARTTLS" in outcome.reason


def test_server_without_authentication_gets_no_mail_of_a_user() -> None:
    inbox = Inbox()
    with smtp(inbox) as port:
        outcome = send(f"smtp://{CREDENTIALS}localhost:{port}")

    assert (outcome.kind, inbox.received) == ("unreachable", [])
    assert "AUTH" in outcome.reason


@pytest.mark.parametrize("scheme", ["smtps", "smtp+starttls"])
@pytest.mark.parametrize(
    ("name", "hours", "is_trusted", "reason"),
    [
        ("localhost", 1, False, "self-signed"),
        ("localhost", -1, True, "expired"),
        ("mail.test.kr", 1, True, "mismatch"),
    ],
)
def test_certificate_that_is_not_valid_for_the_server_gets_no_mail(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scheme: str,
    name: str,
    hours: int,
    is_trusted: bool,
    reason: str,
) -> None:
    file = write_self_signed(tmp_path / "server.pem", name, hours=hours)
    if is_trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
    context, inbox = context_of(file), Inbox()
    options = {"ssl_context" if scheme == "smtps" else "tls_context": context}
    with smtp(inbox, **options) as port:
        outcome = send(f"{scheme}://{CREDENTIALS}localhost:{port}")

    assert (outcome.kind, inbox.received) == ("unreachable", [])
    assert reason in outcome.reason


# ---------------------------------------------------------------- replies


@pytest.mark.parametrize(
    ("replies", "expected"),
    [
        ({"mail_reply": "451 later"}, SendOutcome("unreachable", 451)),
        ({"mail_reply": "553 not this sender"}, SendOutcome("unreachable", 553)),
        ({"rcpt_reply": "450 mailbox busy"}, SendOutcome("postponed", 450)),
        ({"rcpt_reply": "550 no such mailbox"}, SendOutcome("rejected", 550)),
        ({"rcpt_reply": "251 forwarded"}, SENT),
        ({"data_reply": "452 no space"}, SendOutcome("postponed", 452)),
        ({"data_reply": "554 refused"}, SendOutcome("rejected", 554)),
    ],
)
def test_reply_says_whether_this_mail_all_mails_or_none_can_be_sent_later(
    replies: dict[str, str], expected: SendOutcome
) -> None:
    inbox = Inbox()
    vars(inbox).update(replies)
    with smtp(inbox) as port:
        assert send(f"smtp://127.0.0.1:{port}") == expected


@pytest.mark.parametrize("code", [421, 554])
def test_server_that_takes_no_session_is_unreachable_with_its_code(code: int) -> None:
    with raw_server(lambda peer: peer.sendall(f"{code} no\r\n".encode())) as port:
        assert send(f"smtp://127.0.0.1:{port}") == SendOutcome("unreachable", code)


def test_server_that_does_not_listen_is_unreachable() -> None:
    assert send(f"smtp://127.0.0.1:{free_port()}") == SendOutcome("unreachable")


# ---------------------------------------------------------------- time limit


@contextmanager
def raw_server(serve: Callable[[socket.socket], None]) -> Generator[int]:
    """Serves one connection; ends when the client has closed it."""

    def run() -> None:
        peer, _ = listener.accept()
        with peer:
            try:
                serve(peer)
                while peer.recv(4096):
                    pass
            except OSError:
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=run)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def stay_silent(_peer: socket.socket) -> None:
    """Sends no greeting."""


def send_slowly(peer: socket.socket) -> None:
    """A greeting that never ends, in single bytes: each of them arrives in time."""
    while True:
        peer.sendall(b"-")
        sleep(BYTE_SECONDS)


def accept_without_reply(peer: socket.socket, last: bytes = b"") -> None:
    """Replies to everything but the content of the mail, to which it sends ``last``."""
    for reply in ("220 ready", "250 hello", "250 sender", "250 recipient", "354 go on"):
        peer.sendall(f"{reply}\r\n".encode())
        if not reply.startswith("354"):
            peer.recv(4096)
    received = b""
    while not received.endswith(b"\r\n.\r\n"):
        received += peer.recv(4096)
    peer.sendall(last)


@pytest.mark.parametrize("scheme", ["smtp", "smtp+starttls", "smtps"])
@pytest.mark.parametrize("serve", [stay_silent, send_slowly])
def test_server_that_never_finishes_a_reply_is_unreachable_after_the_time_limit(
    scheme: str, serve: Callable[[socket.socket], None]
) -> None:
    with raw_server(serve) as port:
        outcome = send(f"{scheme}://127.0.0.1:{port}", seconds_max=0.3)

    assert outcome == SendOutcome("unreachable")


@pytest.mark.parametrize("last", [b"", b"25", b"garbage\r\n", b"999 \r\n"])
def test_mail_without_a_whole_reply_in_time_may_have_been_accepted(last: bytes) -> None:
    with raw_server(partial(accept_without_reply, last=last)) as port:
        assert send(f"smtp://127.0.0.1:{port}", seconds_max=0.5) == SendOutcome("no_reply")


def reply_with_extension(peer: socket.socket, extension: str, commands: list[str]) -> None:
    """Accepts a mail, as a server with this extension, and keeps the commands."""
    peer.sendall(b"220 ready\r\n")
    for reply in (f"250-hello\r\n250 {extension}", "250 sender", "250 recipient", "354 go on"):
        commands.append(peer.recv(4096).decode().strip())
        peer.sendall(f"{reply}\r\n".encode())
    received = b""
    while not received.endswith(b"\r\n.\r\n"):
        received += peer.recv(4096)
    peer.sendall(b"250 accepted\r\n")


@pytest.mark.parametrize(
    ("extension", "options"), [("DSN", " RET=HDRS ENVID=6fe8"), ("8BITMIME", "")]
)
def test_server_with_notifications_is_asked_to_name_the_mail_without_its_text(
    extension: str, options: str
) -> None:
    commands: list[str] = []
    message = EmailMessage()
    message["From"], message["To"] = "no-reply@shop.kr", "kim@test.kr"
    message["Message-ID"] = "<6fe8@shop.kr>"
    message.set_content("text")
    serve = partial(reply_with_extension, extension=extension, commands=commands)
    with raw_server(serve) as port:
        outcome = MailServer(f"smtp://127.0.0.1:{port}").send(message)

    assert outcome == SENT
    assert commands[1] == f"mail FROM:<no-reply@shop.kr>{options}"
