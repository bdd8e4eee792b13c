"""Languages of responses: which one a request prefers, and the shop's sentences in it.

English is in the code, and its sentences are the keys of the other languages' catalogues, as with
gettext: one file ``messages_<language>.json`` each, read when a response first needs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Self

ENGLISH = "en"
LANGUAGES = (ENGLISH, "ko")
FRACTION_LENGTH_MAX = 3


class Phrase(str):
    """An English sentence that remembers its template and values, for its translation.

    ``english`` is the sentence where that is not the filled template: validation errors of pydantic
    have their type as template.
    """

    template: str
    values: Mapping[str, object]

    def __new__(cls, template: str, /, *, english: str | None = None, **values: object) -> Self:
        phrase = super().__new__(cls, template.format(**values) if english is None else english)
        phrase.template, phrase.values = template, values
        return phrase


def preferred_language(accept_language: str | None, *, default: str) -> str:
    """The language of ours that an ``Accept-Language`` header prefers, else the default.

    By quality value (RFC 9110 section 12.5.4), then in the header's order.  ``en-GB`` finds ``en``
    (RFC 4647 section 3.4), ``*`` every language that is not in the header; malformed elements are
    ignored.
    """
    if not accept_language:
        return default
    qualities: dict[str, float] = {}
    for element in accept_language.lower().split(","):
        language_range, _, weight = element.partition(";")
        quality = _quality(weight)
        if quality is not None:
            language = language_range.strip().partition("-")[0]
            qualities[language] = max(quality, qualities.get(language, 0.0))
    others = qualities.get("*", 0.0)
    known = [each for each in (*qualities, default, *LANGUAGES) if each in LANGUAGES]
    best = max(known, key=lambda language: qualities.get(language, others))
    return best if qualities.get(best, others) > 0 else default


def title_in(language: str, status: int) -> str | None:
    """The title of a problem document with this status; None when the catalogue has none."""
    return _catalogue(language)["titles"].get(str(status))


def translate(text: str, language: str) -> str | None:
    """A sentence of the shop in another language than English; None when the catalogue has none."""
    catalogue = _catalogue(language)
    template = text.template if isinstance(text, Phrase) else text
    translated = catalogue["messages"].get(template, catalogue["validation"].get(template))
    if translated is None or not isinstance(text, Phrase):
        return translated
    values = {name: _value(value, language) for name, value in text.values.items()}
    return translated.format_map(values)


def _value(value: object, language: str) -> object:
    """A value within a sentence: a sentence or a word of the catalogue, else as it is."""
    if isinstance(value, Phrase):
        return translate(value, language) or value
    return _catalogue(language)["words"].get(value, value) if isinstance(value, str) else value


@cache
def _catalogue(language: str) -> dict[str, dict[str, str]]:
    """``titles`` by status, ``validation`` by type of error, others by their English."""
    import json
    from pathlib import Path

    path = Path(__file__).with_name(f"messages_{language}.json")
    catalogue: dict[str, dict[str, str]] = json.loads(path.read_text("utf-8"))
    return catalogue


def _quality(weight: str) -> float | None:
    """The value of ``;q=…`` (RFC 9110 section 12.4.2): 1 without one, None when malformed."""
    name, _, value = (part.strip() for part in weight.partition("="))
    if not name:
        return 1.0
    whole, _, fraction = value.partition(".")
    is_number = whole in ("0", "1") and (
        not fraction or (fraction.isascii() and fraction.isdigit())
    )
    if name != "q" or not is_number or len(fraction) > FRACTION_LENGTH_MAX or float(value) > 1:
        return None
    return float(value)
