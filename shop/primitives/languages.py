"""The languages of the shop, and which of them a request asks for.

``Accept-Language`` is defined in RFC 9110 section 12.5.4.
"""

from __future__ import annotations

import re

LANGUAGES = ("ko", "en")
DEFAULT = LANGUAGES[0]
# a language range (RFC 4647 section 2.1), of which the first part counts, and its weight
MEMBER = re.compile(
    r"[ \t]*(?P<language>[A-Za-z]{1,8}|\*)(?:-[A-Za-z0-9]{1,8})*"
    r"(?:[ \t]*;[ \t]*[Qq]=(?P<weight>0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?[ \t]*"
)


def preferred_language(accept_language: str | None) -> str:
    """The language of ours with the greatest weight; of equal ones the first in the header.

    ``en-GB`` asks for ``en``, and ``*`` for every language that the header does not name.  ``ko``
    when the header asks for none of ours; what is no language range is ignored.
    """
    weights: dict[str, float] = {}
    for text in (accept_language or "").split(","):
        member = MEMBER.fullmatch(text)
        if member is not None:
            language = member["language"].lower()
            weights.setdefault(language, float(member["weight"] or 1))
    others = weights.pop("*", 0.0)
    acceptable = {name: weight for name, weight in weights.items() if name in LANGUAGES}
    acceptable |= {name: others for name in LANGUAGES if name not in acceptable}
    best = max(acceptable, key=lambda name: acceptable[name])
    return best if acceptable[best] else DEFAULT
