"""Entity tags in If-Match and If-None-Match, as RFC 9110 compares them."""

from __future__ import annotations

import pytest

from shop.primitives.errors import ClientError
from shop.primitives.etags import TAGS_MAX, is_known, strong_tags

TOO_MANY = ", ".join(f'"{number}"' for number in range(TAGS_MAX + 1))
MALFORMED = ("garbage", '"a" "b"', '"a', '*, "a"', 'w/"a"', '"a b"', "'a'", '"a";q=1', 'W/ "a"')
LISTS: list[tuple[str, list[str]]] = [
    ('"a"', ["a"]),
    ('"a","b"', ["a", "b"]),
    (' ,"a"\t, ,"b", ', ["a", "b"]),
    ('"a,b"', ["a,b"]),
    ('""', [""]),
    ('"W/x"', ["W/x"]),
    ("", []),
    ('W/"a"', []),
    ('W/"a", "b"', ["b"]),
    ('"1.5-gzip"', ["1.5"]),
    ('"1.5--gzip", "1.5-br"', ["1.5", "1.5"]),
    ('W/"1.5-gzip"', []),
    ('"gzip"', ["gzip"]),
]


@pytest.mark.parametrize(("header", "expected"), LISTS)
def test_strong_comparison_reads_the_strong_tags_of_a_list(
    header: str, expected: list[str]
) -> None:
    assert strong_tags(header) == expected


def test_asterisk_matches_any_state() -> None:
    assert strong_tags(" * ") is None
    assert is_known("*", '"a"')


@pytest.mark.parametrize(
    "header", ['"a"', 'W/"a"', '"x", W/"a"', '"a-gzip"', 'W/"a-br"', ',,"a"', "*"]
)
def test_weak_comparison_ignores_weakness_and_coding(header: str) -> None:
    assert is_known(header, '"a"')


@pytest.mark.parametrize("header", [None, "", '"b"', '"A"', '"a-gzip-2"', *MALFORMED])
def test_other_or_unreadable_tags_are_not_known(header: str | None) -> None:
    assert not is_known(header, '"a"')


@pytest.mark.parametrize("header", MALFORMED)
def test_unreadable_if_match_gets_400(header: str) -> None:
    with pytest.raises(ClientError) as raised:
        strong_tags(header)

    assert raised.value.status == 400


def test_more_tags_than_the_limit_get_400_instead_of_being_ignored() -> None:
    with pytest.raises(ClientError) as changing:
        strong_tags(TOO_MANY)
    with pytest.raises(ClientError) as reading:
        is_known(TOO_MANY, '"a"')

    assert (changing.value.status, reading.value.status) == (400, 400)
    assert strong_tags(TOO_MANY.rpartition(",")[0]) == [str(n) for n in range(TAGS_MAX)]
