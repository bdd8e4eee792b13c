"""The cookie by which a device proves that it has logged in to an account before.

It changes only how failed log-ins are counted (``shop/login_failures.py``) and gives no access.
The form is that of OWASP's device cookies: a device, the time of issue, and a MAC over both and the
e-mail, which the cookie itself does not contain.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import urlsafe_b64encode
from dataclasses import field
from datetime import datetime

from events.records import frozen

COOKIE = "shop_device"
LIFETIME_SECONDS = 180 * 24 * 3600
VALUE = re.compile(rf"(?:^|;\s*){COOKIE}=([0-9a-f]{{32}})\.([0-9]{{1,12}})\.([A-Za-z0-9_-]{{43}})")


@frozen
class DeviceProof:
    """Reads and makes the cookies of one account, which is named by its e-mail key."""

    key: bytes = field(repr=False)
    email_key: str
    now: datetime

    def device_in(self, cookie: str | None) -> str | None:
        """The device that a Cookie header proves; None without a valid proof for this account."""
        match = VALUE.search(cookie or "")
        if match is None:
            return None
        device, issued_at, mac = match[1], int(match[2]), match[3]
        is_current = 0 <= self.now.timestamp() - issued_at < LIFETIME_SECONDS
        is_ours = hmac.compare_digest(mac, self._mac(device, issued_at))
        return device if is_current and is_ours else None

    def set_cookie(self, device: str) -> str:
        """The Set-Cookie header after a log-in.

        Without ``Path`` the browser sends the cookie to the folder of the log-in route only, also
        behind a gateway that puts a prefix before it.
        """
        issued_at = int(self.now.timestamp())
        value = f"{device}.{issued_at}.{self._mac(device, issued_at)}"
        return f"{COOKIE}={value}; Max-Age={LIFETIME_SECONDS}; Secure; HttpOnly; SameSite=Strict"

    def _mac(self, device: str, issued_at: int) -> str:
        signed = f"{device}.{issued_at}.{self.email_key}".encode()
        return urlsafe_b64encode(hmac.digest(self.key, signed, hashlib.sha256)).decode().rstrip("=")
