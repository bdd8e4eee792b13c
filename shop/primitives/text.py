"""Text that people type: composed, then checked.

macOS and some keyboards send letters decomposed (한글 as six code points), so every text is put
into Unicode normalization form C first; lengths are in code points of that form.
"""

from __future__ import annotations

import unicodedata

from shop.primitives.languages import Phrase

MARKS_MAX = 4  # combining marks on one letter; Vietnamese needs two
# a code point of the composed form has at most four in the decomposed one
DECOMPOSED_MAX = 4

# controls, formats (bidirectional overrides, zero width, soft hyphen, tags), surrogates, private
# use, and the two separators that some programs treat as line ends
HIDDEN = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
ZWNJ, ZWJ = "\u200c", "\u200d"
VIRAMA = 9  # the combining class of marks that join consonants in the scripts of India
# scripts whose letters join, by the first word of their letters' names
CURSIVE_SCRIPTS = ("ARABIC", "SYRIAC", "MONGOLIAN", "NKO", "MANDAIC", "MANICHAEAN", "ADLAM")
# what may follow a picture within an emoji sequence: variation selector 16, and skin tones
PICTURE_SUFFIXES = "\ufe0f\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff"


def compose(text: str, *, length_max: int) -> str:
    """The text in normalization form C; ``ValueError`` when that has more than ``length_max``."""
    # before normalizing, whose time grows with the square of a pile of combining marks
    composed = "" if len(text) > DECOMPOSED_MAX * length_max else unicodedata.normalize("NFC", text)
    if len(text) > DECOMPOSED_MAX * length_max or len(composed) > length_max:
        raise ValueError(Phrase("must have at most {length_max} characters", length_max=length_max))
    return composed


def one_line(text: str, *, length_max: int) -> str:
    """Composed text of one line with something to see; ``ValueError`` for other text.

    Letters of every script and emoji are allowed.  Control, direction and zero-width characters and
    piles of combining marks are not, because they make one text look like another; joiners are
    allowed where a script or an emoji sequence needs them.
    """
    text = compose(text, length_max=length_max)
    if not text.strip():
        raise ValueError(
            Phrase("must have 1 to {length_max} characters, not only spaces", length_max=length_max)
        )
    _check_readable(text)
    return text


def many_lines(text: str, *, length_max: int) -> str:
    """As ``one_line``, but line feeds and an empty text are allowed."""
    text = compose(text, length_max=length_max)
    _check_readable(text.replace("\n", " "))
    return text


def _check_readable(text: str) -> None:
    if text.isascii() and text.isprintable():
        return
    marks = 0
    for place, character in enumerate(text):
        category = unicodedata.category(character)
        is_joiner = character in (ZWNJ, ZWJ) and _joins(text, place)
        if (category in HIDDEN and not is_joiner) or _is_no_character(ord(character)):
            raise ValueError("must not contain control, zero-width or direction characters")
        marks = marks + 1 if category in ("Mn", "Me") else 0
        if marks > MARKS_MAX:
            raise ValueError("must not pile up combining marks")


def _joins(text: str, place: int) -> bool:
    """Whether a joiner is where it changes what is seen (RFC 5892 appendix A, UTS 51)."""
    before, after = text[:place], text[place + 1 : place + 2]
    if not before or not after:
        return False
    if VIRAMA in (unicodedata.combining(before[-1]), unicodedata.combining(after)):
        return True
    if text[place] == ZWJ and _is_picture(before.rstrip(PICTURE_SUFFIXES)[-1:]):
        return _is_picture(after)
    while before and unicodedata.category(before[-1]) == "Mn":
        before = before[:-1]
    return _is_cursive(before[-1:]) and _is_cursive(after)


def _is_picture(character: str) -> bool:
    # So, and arrows, which are Sm
    return character != "" and unicodedata.category(character) in ("So", "Sm")


def _is_cursive(character: str) -> bool:
    return character != "" and unicodedata.name(character, "").startswith(CURSIVE_SCRIPTS)


def _is_no_character(code: int) -> bool:
    return 0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE
