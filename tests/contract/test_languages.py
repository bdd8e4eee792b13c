"""Every sentence for people is in every catalogue, and every error of validation is translated.

The renderer of docs/reference/problems.md reads the source and compares the catalogues with it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from shop.primitives.errors import ClientError
from shop.registry import all_specs
from shop.runtime.http_messages import HttpRequest, HttpResponse, problem
from shop.runtime.request_validation import (
    _validate,  # pyright: ignore[reportPrivateUsage]
)
from shop.runtime.routing import Router
from tools.render.problems import Sentence, Source, catalogues, untranslated

HANGUL = re.compile("[가-힣]")
PLACEHOLDER = re.compile(r"\{\w+\}")
WRONG: tuple[Any, ...] = (
    None, True, -1, 0, 10**30, 1.5, "", "x", "x" * 5_000, " x ", "\x00", "\u200b", "\u0301" * 6,
    "4111111111111111", "2026-02-30", "1999-01-01", "https://x:y", [], [1], [None], ["x", "x"],
    [{}], ["x"] * 200, {}, {"x": 1},
)  # fmt: skip

MODULE = """
def f(a):
    raise ClientError(409, "SOME_CODE", {})
"""


def source_of(tmp_path: Path, text: str) -> Source:
    module = tmp_path / "functions/f/handler.py"
    module.parent.mkdir(parents=True)
    module.write_text(text)
    return Source().read(tmp_path)


@pytest.mark.parametrize(
    ("expression", "sentences"),
    [
        ('"a sentence"', ["a sentence"]),
        ('Phrase("at most {n}", n=1)', ["at most {n}"]),
        ('"one" if a else Phrase("two")', ["one", "two"]),
    ],
)
def test_sentence_of_an_error_is_found_with_its_code(
    tmp_path: Path, expression: str, sentences: list[str]
) -> None:
    source = source_of(tmp_path, MODULE.format(expression))

    assert source.sentences == {Sentence(409, "SOME_CODE", each) for each in sentences}


@pytest.mark.parametrize("expression", ['f"at most {a}"', '"a " + a', '"a %s" % a'])
def test_sentence_that_cannot_be_translated_is_rejected(tmp_path: Path, expression: str) -> None:
    with pytest.raises(ValueError, match="as a literal, or as a Phrase"):
        source_of(tmp_path, MODULE.format(expression))


def test_sentence_without_translation_or_with_other_placeholders_is_reported() -> None:
    source = Source({Sentence(409, "A", "one"), Sentence(410, "B", "at most {n}")}, {"word"})
    messages = {"at most {n}": "{m}까지", "three": "셋"}

    found = untranslated(source, {"titles": {"409": "x"}, "messages": messages, "words": {}})

    assert found == [
        "messages: no translation of 'one'",
        "messages: 'three' is not used",
        "words: no translation of 'word'",
        "titles: none of status 410",
        "messages: 'at most {n}' is translated with other placeholders",
    ]


def test_korean_texts_are_korean() -> None:
    texts = [text for section in catalogues()["ko"].values() for text in section.values()]
    letters = [text for text in texts if re.search(r"\w", PLACEHOLDER.sub("", text))]

    assert [text for text in letters if not HANGUL.search(text)] == []


def problems_of(model: type[BaseModel]) -> Iterator[HttpResponse]:
    """The responses to bodies that each have a wrong value, for callers who prefer Korean."""
    names = [field.alias or name for name, field in model.model_fields.items()]
    bodies: list[object] = [1, [], {}, dict.fromkeys(names), {"unknown": 1}]
    bodies += [{name: wrong} for name in names for wrong in WRONG]
    bodies += [dict.fromkeys(names, wrong) for wrong in WRONG]
    request = HttpRequest("POST", "/", "", {"accept-language": "ko"}, "", lambda _: b"")
    for body in bodies:
        try:
            _validate(model, body, status=422, code="INVALID")
        except ClientError as error:
            yield problem(error, request)


def test_every_error_about_a_field_is_korean_when_korean_is_preferred() -> None:
    operations = Router(all_specs()).operations
    models = {
        model for each in operations for model in (each.body_model, each.query_model) if model
    }
    seen = 0
    for model in models:
        for response in problems_of(model):
            document = json.loads(response.body)
            texts = [document["detail"], *(each["message"] for each in document["errors"])]
            assert all(HANGUL.search(text) for text in texts), (model, texts)
            seen += len(texts)
    assert seen > 1_000
