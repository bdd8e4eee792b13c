"""A code mutant: a hole put back into the shop, as edits of its text that apply exactly once.

A catalogue rots silently when the text it edits moves on, so an edit that finds its text nowhere,
or more than once, is an error and never a mutant that changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


class DoesNotApply(ValueError):
    """An edit whose text is not in its file exactly once, or that leaves no Python behind."""


@dataclass(frozen=True)
class Edit:
    """One replacement; ``find`` occurs exactly once in ``file`` (a path from the root)."""

    file: str
    find: str
    replace: str


@dataclass(frozen=True)
class Mutant:
    """A careless shop; ``hole`` is what the original did, or the rule of the design it breaks.

    ``caught_by`` names the invariants and checks expected to find it; any named one is a catch.
    """

    id: str
    hole: str
    what: str
    edits: tuple[Edit, ...]
    caught_by: tuple[str, ...]


def mutated_files(mutant: Mutant, root: Path) -> dict[str, str]:
    """The new text of each file that ``mutant`` changes; raises ``DoesNotApply``."""
    texts: dict[str, str] = {}
    for edit in mutant.edits:
        before = texts.get(edit.file)
        if before is None:
            before = _text_of(mutant, root, edit.file)
        found = before.count(edit.find)
        if found != 1:
            raise DoesNotApply(f"{mutant.id}: {edit.file}: found {found} times: {edit.find!r}")
        texts[edit.file] = before.replace(edit.find, edit.replace)
    for file, text in texts.items():
        _compile(mutant, file, text)
    return texts


def _text_of(mutant: Mutant, root: Path, file: str) -> str:
    try:
        return (root / file).read_text()
    except OSError as error:
        raise DoesNotApply(f"{mutant.id}: {file}: {error.strerror}") from error


def _compile(mutant: Mutant, file: str, text: str) -> None:
    try:
        compile(text, file, "exec")
    except SyntaxError as error:
        raise DoesNotApply(f"{mutant.id}: {file}: {error}") from error
