"""The language that a request asks for (RFC 9110 section 12.5.4)."""

from __future__ import annotations

import pytest

from shop.primitives.languages import preferred_language


@pytest.mark.parametrize(
    ("accept_language", "expected"),
    [
        (None, "ko"),
        ("", "ko"),
        ("ko", "ko"),
        ("en", "en"),
        ("EN-us", "en"),
        ("en-US,en;q=0.9,ko;q=0.8", "en"),
        ("ko-KR,ko;q=0.9,en-US;q=0.8,en;q=0.7", "ko"),
        ("en;q=0.8, ko;q=0.9", "ko"),
        ("en,ko", "en"),
        ("ja, en;q=0.5", "en"),
        ("ja, de;q=0.5", "ko"),
        ("*", "ko"),
        ("en;q=0.5, *;q=0.8", "ko"),
        ("ko;q=0, *", "en"),
        ("ko;q=0, en;q=0", "ko"),
        ("ko;q=0.000,en ; Q=0.001", "en"),
    ],
)
def test_language_with_the_greatest_weight_is_chosen(
    accept_language: str | None, expected: str
) -> None:
    assert preferred_language(accept_language) == expected


@pytest.mark.parametrize(
    "malformed",
    [
        ",,,",
        "en;q=2",
        "en;q=nan",
        "en;q=-1",
        "en;level=1",
        "e n",
        "en\x00",
        "영어",
        "en_US",
        "en;q=",
    ],
)
def test_member_that_is_no_language_range_is_ignored(malformed: str) -> None:
    assert preferred_language(malformed) == "ko"
    assert preferred_language(f"{malformed}, en;q=0.1") == "en"
