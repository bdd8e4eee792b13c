"""Sends a mail through an SMTP server (RFC 5321), with TLS, in a limited time.

``MailServer`` opens a connection for each mail.  The outcome says whether the server accepted the
mail, and if not, whether another attempt can succeed.  The texts of replies are not kept, since
they quote addresses.
"""

from __future__ import annotations

import smtplib
import socket
import ssl
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal, Protocol
from urllib.parse import unquote, urlsplit

from events.records import frozen

if TYPE_CHECKING:
    from email.message import EmailMessage

# With the time to connect less than the lease of a mail (shop/mails.py).
SECONDS_MAX = 10.0
PORTS = {"smtp": 25, "smtp+starttls": 587, "smtps": 465}
ACCEPTED = 250
RECIPIENT_ACCEPTED = (250, 251)
PERMANENT = 500
# of RFC 5321 section 4.2.1
CODES = (200, 599)

SendKind = Literal["sent", "rejected", "postponed", "unreachable", "no_reply"]


@frozen
class SendOutcome:
    """What became of an attempt; ``code`` is that of the server's reply, if there was one.

    ``unreachable``: there was no session in which a mail could be sent; another mail would not have
    been sent either.  ``no_reply``: the mail was sent, and no reply to it arrived.  ``reason`` is
    given where the server lacks what SMTP_URL requires, which time does not change.
    """

    kind: SendKind
    code: int | None = None
    reason: str = ""


@frozen(kw_only=True)
class MailServerUrl:
    """The parts of SMTP_URL; ``scheme`` is one of ``PORTS``."""

    scheme: str
    host: str
    port: int
    user: str
    password: str


def read_url(text: str) -> MailServerUrl:
    """The parts of ``smtps://user:password@host:465``; ValueError for other text.

    ``smtps`` is TLS from the first byte (RFC 8314), ``smtp+starttls`` TLS after STARTTLS, which the
    server must offer, and ``smtp`` no TLS.  User and password are percent-encoded, or not given.
    """
    parts = urlsplit(text)
    if parts.scheme not in PORTS or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ValueError("is not an address such as smtps://user:password@host:465")
    if bool(parts.username) != bool(parts.password):
        raise ValueError("has a user without a password, or a password without a user")
    if parts.port == 0:
        raise ValueError("has the port 0")
    return MailServerUrl(
        scheme=parts.scheme,
        host=parts.hostname,
        port=parts.port or PORTS[parts.scheme],
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
    )


class Sends(Protocol):
    """What sends mails."""

    def send(self, message: EmailMessage) -> SendOutcome:
        """Sends one mail to its one recipient; raises nothing."""
        ...


@frozen(kw_only=True)
class Mailing:
    """What sending a mail needs: the server, and what all mails say of the shop.

    ``sender`` is an address, and ``link_key`` the key of one-time links.
    """

    server: Sends
    sender: str
    shop_name: str
    shop_url: str
    link_key: str


class MailServer:
    """An SMTP server; nothing is connected before the first mail.

    ``seconds_max`` limits the session, and half of it the connection to each address of the server.
    """

    def __init__(self, url: str, seconds_max: float = SECONDS_MAX) -> None:
        self._url = read_url(url)
        self._seconds_max = seconds_max

    def send(self, message: EmailMessage) -> SendOutcome:
        """Sends one mail to its one recipient, in a connection of its own; raises nothing."""
        address = (self._url.host, self._url.port)
        try:
            connection = socket.create_connection(address, timeout=self._seconds_max / 2)
        except OSError:
            return SendOutcome("unreachable")
        with _ends_after(connection, self._seconds_max):
            return self._send(connection, message)

    def _send(self, connection: socket.socket, message: EmailMessage) -> SendOutcome:
        try:
            session = _open(self._url, connection, name=domain_of(str(message["From"])))
        except smtplib.SMTPResponseException as error:
            return SendOutcome("unreachable", _code(error.smtp_code))
        except ssl.SSLCertVerificationError as error:
            return SendOutcome("unreachable", reason=f"its certificate: {error.verify_message}")
        except smtplib.SMTPNotSupportedError as error:
            return SendOutcome("unreachable", reason=str(error))
        except (OSError, smtplib.SMTPException):
            return SendOutcome("unreachable")
        try:
            return _transfer(session, message)
        finally:
            # QUIT would wait for a reply that says nothing new
            session.close()


class _Session(smtplib.SMTP):
    """A session over a connection that is open already."""

    def __init__(self, connection: socket.socket, url: MailServerUrl, name: str) -> None:
        self._connection = connection
        super().__init__(url.host, url.port, local_hostname=name)

    # smtplib calls it to open the connection
    def _get_socket(self, _host: str, _port: int, _timeout: float) -> socket.socket:
        return self._connection


def domain_of(address: str) -> str:
    """What follows the @ of an address."""
    return address.rstrip(">").rpartition("@")[2]


@contextmanager
def _ends_after(connection: socket.socket, seconds: float) -> Generator[None]:
    """Ends the connection after this time, also under a server that replies byte by byte.

    Timeouts of sockets limit each read only.  The duplicate stays valid when TLS replaces the
    socket object.
    """
    connection.settimeout(seconds)
    with connection.dup() as duplicate:
        timer = threading.Timer(seconds, _shut_down, (duplicate,))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()
            connection.close()


def _shut_down(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _open(url: MailServerUrl, connection: socket.socket, *, name: str) -> smtplib.SMTP:
    """A session that is ready for a mail: with TLS and the user logged in.

    ``name`` is what the session calls itself; without one smtplib asks the DNS for this host's.
    """
    if url.scheme == "smtps":
        context = ssl.create_default_context()
        connection = context.wrap_socket(connection, server_hostname=url.host)
    session = _Session(connection, url, name)
    try:
        if url.scheme == "smtp+starttls":
            session.starttls(context=ssl.create_default_context())
        session.ehlo_or_helo_if_needed()
        if url.user:
            session.login(url.user, url.password)
    except BaseException:
        session.close()
        raise
    return session


def _transfer(session: smtplib.SMTP, message: EmailMessage) -> SendOutcome:
    """The mail transaction (RFC 5321 section 3.3)."""
    try:
        code, _ = session.mail(
            _address_of(message["From"]), _notification_options(session, message)
        )
        if code != ACCEPTED:
            # the server rejects the sender, who is that of all mails
            return SendOutcome("unreachable", _code(code))
        code, _ = session.rcpt(_address_of(message["To"]))
        if code not in RECIPIENT_ACCEPTED:
            return _not_accepted(code)
    except (OSError, smtplib.SMTPException):
        return SendOutcome("unreachable")
    try:
        code, _ = session.data(message.as_bytes())
    except smtplib.SMTPDataError as error:
        return _not_accepted(error.smtp_code)
    except (OSError, smtplib.SMTPException):
        return SendOutcome("no_reply")
    if _code(code) is None:
        return SendOutcome("no_reply")
    return SendOutcome("sent") if code == ACCEPTED else _not_accepted(code)


def _notification_options(session: smtplib.SMTP, message: EmailMessage) -> list[str]:
    """What a notification about the mail is to contain (RFC 3461), if the server sends such.

    Its id, also when a relay replaces the Message-ID, and its header fields without the text, which
    may have a link that sets a password.
    """
    name = str(message["Message-ID"] or "").strip("<>").partition("@")[0]
    return ["RET=HDRS", f"ENVID={name}"] if name and session.has_extn("dsn") else []


def _not_accepted(code: int) -> SendOutcome:
    """A permanent reply is for this mail (RFC 5321 section 4.2.1), any other is temporary."""
    return SendOutcome("rejected" if code >= PERMANENT else "postponed", _code(code))


def _code(code: int) -> int | None:
    """The code of a reply; None for what is no reply, as after half of its line."""
    return code if CODES[0] <= code <= CODES[1] else None


# Any: the type of a header's value, which has addresses, is known to the policy only.
def _address_of(header: Any) -> str:
    return str(header.addresses[0].addr_spec)
