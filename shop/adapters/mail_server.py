"""Sends a mail through an SMTP server (RFC 5321), with TLS, within a time for the whole mail.

``MailServer`` opens a connection for each mail.  The outcome says whether the server accepted the
mail, and if not, whether another attempt can succeed.  The texts of replies are not kept, since
they quote addresses.
"""

from __future__ import annotations

import smtplib
import ssl
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, Protocol
from urllib.parse import unquote, urlsplit

from events.records import frozen

if TYPE_CHECKING:
    from email.message import EmailMessage

# Less than the lease of a mail (shop/mails.py).
SECONDS_MAX = 10.0
PORTS = {"smtp": 25, "smtp+starttls": 587, "smtps": 465}
SECONDS_MIN = 0.1
ACCEPTED = 250
RECIPIENT_ACCEPTED = (250, 251)
PERMANENT = 500

SendKind = Literal["sent", "rejected", "postponed", "unreachable", "no_reply"]


@frozen
class SendOutcome:
    """What became of an attempt; ``code`` is that of the server's reply, if there was one.

    ``unreachable``: there was no session in which a mail could be sent; another mail would not have
    been sent either.  ``no_reply``: the mail was sent, and no reply to it arrived.
    """

    kind: SendKind
    code: int | None = None


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
    """An SMTP server; nothing is connected before the first mail."""

    def __init__(self, url: str, seconds_max: float = SECONDS_MAX) -> None:
        self._url = read_url(url)
        self._seconds_max = seconds_max

    def send(self, message: EmailMessage) -> SendOutcome:
        """Sends one mail to its one recipient, in a connection of its own; raises nothing."""
        deadline = monotonic() + self._seconds_max
        try:
            session = _open(self._url, deadline, name=domain_of(str(message["From"])))
        except smtplib.SMTPResponseException as error:
            return SendOutcome("unreachable", error.smtp_code)
        except (OSError, smtplib.SMTPException):
            return SendOutcome("unreachable")
        try:
            return _send(session, message, deadline)
        finally:
            # QUIT would wait for a reply that says nothing new
            session.close()


def domain_of(address: str) -> str:
    """What follows the @ of an address."""
    return address.rstrip(">").rpartition("@")[2]


def _open(url: MailServerUrl, deadline: float, *, name: str) -> smtplib.SMTP:
    """A session that is ready for a mail: with TLS and the user logged in.

    ``name`` is what the session calls itself; without one smtplib asks the DNS for this host's.
    """
    timeout = deadline - monotonic()
    session: smtplib.SMTP
    if url.scheme == "smtps":
        context = ssl.create_default_context()
        session = smtplib.SMTP_SSL(
            url.host, url.port, local_hostname=name, timeout=timeout, context=context
        )
    else:
        session = smtplib.SMTP(url.host, url.port, local_hostname=name, timeout=timeout)
    try:
        if url.scheme == "smtp+starttls":
            _limit(session, deadline)
            session.starttls(context=ssl.create_default_context())
        _limit(session, deadline)
        session.ehlo_or_helo_if_needed()
        if url.user:
            session.login(url.user, url.password)
    except BaseException:
        session.close()
        raise
    return session


def _send(session: smtplib.SMTP, message: EmailMessage, deadline: float) -> SendOutcome:
    """The mail transaction (RFC 5321 section 3.3)."""
    try:
        _limit(session, deadline)
        code, _ = session.mail(_address_of(message["From"]))
        if code != ACCEPTED:
            # the server rejects the sender, who is that of all mails
            return SendOutcome("unreachable", code)
        code, _ = session.rcpt(_address_of(message["To"]))
        if code not in RECIPIENT_ACCEPTED:
            return _not_accepted(code)
    except (OSError, smtplib.SMTPException):
        return SendOutcome("unreachable")
    try:
        _limit(session, deadline)
        code, _ = session.data(message.as_bytes())
    except smtplib.SMTPDataError as error:
        return _not_accepted(error.smtp_code)
    except (OSError, smtplib.SMTPException):
        return SendOutcome("no_reply")
    return SendOutcome("sent") if code == ACCEPTED else _not_accepted(code)


def _not_accepted(code: int) -> SendOutcome:
    """A permanent reply is for this mail (RFC 5321 section 4.2.1), any other is temporary."""
    return SendOutcome("rejected" if code >= PERMANENT else "postponed", code)


def _limit(session: smtplib.SMTP, deadline: float) -> None:
    """Limits each read of the socket by what is left of the mail's time."""
    if session.sock is not None:
        session.sock.settimeout(max(SECONDS_MIN, deadline - monotonic()))


# Any: the type of a header's value, which has addresses, is known to the policy only.
def _address_of(header: Any) -> str:
    return str(header.addresses[0].addr_spec)
