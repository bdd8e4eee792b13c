"""The cookie of a known device: proof for one account, for 180 days, under one key."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from functions.login.device import LIFETIME_SECONDS, DeviceProof

KEY = b"k" * 32
NOW = datetime(2026, 11, 28, tzinfo=UTC)
DEVICE = "0123456789abcdef" * 2
PROOF = DeviceProof(KEY, "kim@example.com", NOW)
COOKIE = PROOF.set_cookie(DEVICE).partition(";")[0]


def test_cookie_proves_its_device_among_other_cookies() -> None:
    assert PROOF.device_in(COOKIE) == DEVICE
    assert PROOF.device_in(f"theme=dark; {COOKIE}; lang=ko") == DEVICE


@pytest.mark.parametrize(
    "proof",
    [
        DeviceProof(KEY, "lee@example.com", NOW),
        DeviceProof(b"x" * 32, "kim@example.com", NOW),
        DeviceProof(KEY, "kim@example.com", NOW - timedelta(seconds=1)),
        DeviceProof(KEY, "kim@example.com", NOW + timedelta(seconds=LIFETIME_SECONDS)),
    ],
    ids=["another account", "another key", "issued later", "expired"],
)
def test_cookie_of_another_account_key_or_time_proves_nothing(proof: DeviceProof) -> None:
    assert proof.device_in(COOKIE) is None


@pytest.mark.parametrize(
    "cookie",
    [
        None,
        "",
        "shop_device=",
        COOKIE[:-1],
        COOKIE.replace("0123", "1123", 1),
        COOKIE.replace(".", ".9", 1),
        "x" + COOKIE,
        COOKIE.replace("=", "=9", 1),
        "shop_device=" + "a" * 10_000,
        "shop_device=\udcff.1.x",
    ],
)
def test_altered_or_malformed_cookie_proves_nothing(cookie: str | None) -> None:
    assert PROOF.device_in(cookie) is None


def test_key_is_not_shown() -> None:
    assert "kkk" not in repr(PROOF)
