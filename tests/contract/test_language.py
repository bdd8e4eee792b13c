"""Private vocabulary must not return: standard terms only, in code, documents and manifests.

``python -m tests.contract.test_language [WORD ...]`` prints the count of each word and, for the
words that are named, every line.  A word counts inside identifiers too (``first_stage``).
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Each word with the term that replaces it.
REPLACEMENTS = {
    "alarm": "operator alert",
    "books": "provider transactions, ledger",
    "courier": "webhook sender",
    "desk": "local platform",
    "dose": "repetitions",
    "drill": "restore test",
    "fences": "network policies",
    "ghost": "unmatched charge",
    "knock": "request, connect",
    "lane": "fault schedule",
    "nobody": "name the client, caller or process",
    "refusal": "client error",
    "scene": "environment",
    "stage": "harness, environment",
    "story": "order state",
    "surroundings": "endpoints, environment",
    "telling": "name the message or the call",
    "told": "name the message or the call",
    "twin": "duplicate",
    "whoever": "name the client, caller or process",
    "world": "environment, manifest set",
}
PLURALS = {"story": "stories"}

# External names that keep a word: the schema, commands, metrics, and terms of other products.
EXTERNAL_NAMES = re.compile(
    # tables, their columns and indexes, commands, metrics and alert rules
    r"shop\.alarms|(?:shop|tools) alarms|shop_alarms\w*|ShopAlarm\w*|alarms_open|one_open_alarm"
    r"|\balarm_id\b"
    r"|shop\.ghosts|shop ghosts|shop_ghosts\w*|ghosts return|\bghost_\w*|\bghost_id\b|\bghost:"
    r"|(?:alarms|ghosts) = Table|writer: (?:alarms|ghosts)|[\"'`](?:alarms|ghosts?)[\"'`]"
    # a path of the payment simulator, a row of reconciliation, an account of the system
    r"|/books\b|'books'|user nobody|[\"`]nobody[\"`]"
    r"|hello[- ]world"
)
# Records of the past, other people's text, generated locks, and the lists of banned words.
EXCLUDED = re.compile(
    r"^(?:docs/proof/|requirements/|shop/schema/migrations/versions/|tests/contract/test_language"
    r"|docs/glossary\.md|.*/vendor/|web/package-lock|.*\.(?:png|webp|woff2|gz|sum|html)$)"
)
TEXT_FILES = re.compile(
    r"(?:\.(?:py|md|ya?ml|toml|tpl|txt|tmpl|json|css|js|tsx?|go|sh|example)|(?:^|/)"
    r"(?:Makefile|run|seal|kind-up|[\w.-]*Dockerfile))$"
)


def spellings(word: str) -> str:
    """A pattern for the word, its plural, and both inside snake_case and CamelCase names."""
    plural = PLURALS.get(word, word if word.endswith("s") else f"{word}s")
    both = f"(?:{word}|{plural})"
    small, capital, upper = both, f"(?:{word.capitalize()}|{plural.capitalize()})", both.upper()
    return f"(?<![a-zA-Z]){small}(?![a-z])|{capital}(?![a-z])|(?<![A-Z]){upper}(?![A-Z])"


PATTERNS = {word: re.compile(spellings(word)) for word in REPLACEMENTS}
# Few lines have any of the letters: only these are searched for each word.
CANDIDATE = re.compile("|".join((*REPLACEMENTS, *PLURALS.values())), re.IGNORECASE)


@cache
def lines() -> tuple[tuple[str, str], ...]:
    """Every line that may use a word, as ``path:number`` and text without external names."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    paths = [p for p in listed.split("\0") if TEXT_FILES.search(p) and not EXCLUDED.match(p)]
    return tuple(
        (f"{path}:{number}", EXTERNAL_NAMES.sub("", line))
        for path in paths
        if (ROOT / path).is_file()
        for number, line in enumerate((ROOT / path).read_text("utf-8").splitlines(), 1)
        if CANDIDATE.search(line)
    )


def uses(word: str) -> Iterator[str]:
    """Every line that uses the word."""
    pattern = PATTERNS[word]
    return (f"{place}: {line.strip()}" for place, line in lines() if pattern.search(line))


def test_banned_words_are_not_used() -> None:
    used = [
        f"{word} ({REPLACEMENTS[word]}): {line}" for word in REPLACEMENTS for line in uses(word)
    ]

    assert used == []


def test_a_banned_word_is_found_inside_names() -> None:
    found = PATTERNS["stage"].findall("Stage FirstStage first_stage stages stage_of STAGE staged")

    assert found == ["Stage", "Stage", "stage", "stages", "stage", "STAGE"]


def main(words: list[str]) -> None:
    """Prints the count of every word, and the lines of the named ones."""
    for word in REPLACEMENTS:
        found = list(uses(word))
        print(f"{len(found):6} {word}")
        if found and word in words:
            print("\n".join(found))


if __name__ == "__main__":
    main(sys.argv[1:])
