"""Which language a request prefers, and sentences in it."""

from __future__ import annotations

import json

import pytest

from shop.primitives.errors import ClientError
from shop.primitives.languages import Phrase, preferred_language, translate
from shop.runtime.http_messages import HttpRequest, problem


@pytest.mark.parametrize(
    ("header", "language"),
    [
        (None, "en"),
        ("", "en"),
        ("ko", "ko"),
        ("KO-kr", "ko"),
        ("ko-KR,ko;q=0.9,en-US;q=0.8,en;q=0.7", "ko"),
        ("en-US,en;q=0.9,ko;q=0.8", "en"),
        ("en;q=0.5, ko;q=0.501", "ko"),
        ("ko, en", "ko"),
        ("en, ko", "en"),
        ("fr, ko;q=0.1", "ko"),
        ("fr", "en"),
        ("fr, *;q=0.5", "en"),
        ("*", "en"),
        ("*, ko;q=0.5", "en"),
        ("*;q=0.4, ko;q=0.5", "ko"),
        ("en;q=0.1, *;q=0.5", "ko"),
        ("en;q=0, ko;q=0", "en"),
        ("en;q=0, *", "ko"),
        ("ko;q=0", "en"),
        ("ko;q=0.000, en;q=0.001", "en"),
        ("ko ; q = 0.9 , en;q=0.8", "ko"),
        ("korean", "en"),
        (",,;q=1,ko", "ko"),
        ("ko" + ",fr" * 5_000, "ko"),
    ],
)
def test_language_of_the_highest_quality_is_preferred(header: str | None, language: str) -> None:
    assert preferred_language(header, default="en") == language


@pytest.mark.parametrize("header", [None, "", "ja, de;q=0.5", "*", "ko;q=0, en;q=0"])
@pytest.mark.parametrize("default", ["en", "ko"])
def test_default_is_chosen_when_no_language_is_preferred(header: str | None, default: str) -> None:
    assert preferred_language(header, default=default) == default


@pytest.mark.parametrize(
    "malformed",
    [
        ",,,",
        "en;q=2",
        "en;q=1.001",
        "en;q=nan",
        "en;q=-1",
        "en;q=1e-1",
        "en;q=٠",
        "en;q=0.1234",
        "en;level=1",
        "e n",
        "en\x00",
        "영어",
        "en_US",
        "en;q=",
    ],
)
def test_element_that_is_no_language_range_is_ignored(malformed: str) -> None:
    assert preferred_language(malformed, default="ko") == "ko"
    assert preferred_language(f"{malformed}, en;q=0.1", default="ko") == "en"


def problem_of(error: ClientError, accept_language: str) -> tuple[dict[str, object], str]:
    headers = {"accept-language": accept_language}
    request = HttpRequest("GET", "/x", "", headers, "", lambda _: b"")
    response = problem(error, request)
    assert response.headers["vary"] == "Accept-Language"
    return json.loads(response.body), response.headers["content-language"]


def test_phrase_is_its_english_sentence() -> None:
    phrase = Phrase("a cart may have at most {lines} lines", lines=20)

    assert phrase == "a cart may have at most 20 lines"
    assert json.dumps([phrase]) == '["a cart may have at most 20 lines"]'


def test_values_and_words_of_a_phrase_are_in_its_translation() -> None:
    phrase = Phrase("If-Match must name the ETag of the {what} you read", what="product")

    assert translate(phrase, "ko") == "조회한 상품의 ETag를 If-Match에 적어야 합니다"


def test_value_that_looks_like_a_placeholder_is_shown_as_it_is() -> None:
    phrase = Phrase("{field}: {message}", field="{x}{message}", message=Phrase("missing"))

    assert translate(phrase, "ko") == "{x}{message}: 필수 항목입니다"


def test_problem_in_korean_has_the_same_codes() -> None:
    error = ClientError(404, "NOT_FOUND", "the order was not found")

    english, language = problem_of(error, "en")
    korean, other = problem_of(error, "ko")

    assert (language, other) == ("en", "ko")
    sentences = {
        "title": "찾을 수 없음",
        "detail": "주문을 찾을 수 없습니다",
        "message": "주문을 찾을 수 없습니다",
    }
    assert korean == english | sentences
    assert english["detail"] == "the order was not found"


def test_problem_with_an_unknown_sentence_is_in_english_as_a_whole() -> None:
    unknown = ClientError(422, "INVALID", "no such sentence")
    errors = [{"field": "a", "message": "no such sentence"}]
    in_part = ClientError(422, "INVALID", "there is nothing to change", extra={"errors": errors})

    for error in (unknown, in_part):
        document, language = problem_of(error, "ko")
        assert (language, document["detail"]) == ("en", error.message)
        assert document["title"].isascii()  # type: ignore[union-attr]
