"""A mutant: the shop with one defect, made by edits of its source code that apply exactly once.

An edit whose text is not found, or found more than once, is an error.  Without this check, a change
of the source code could turn a mutant into one without a defect.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


class DoesNotApply(ValueError):
    """An edit whose text is not in its file exactly once, or whose result is not valid Python."""


@dataclass(frozen=True)
class Edit:
    """One replacement; ``find`` occurs exactly once in ``file`` (a path from the root)."""

    file: str
    find: str
    replace: str


@dataclass(frozen=True)
class Mutant:
    """A shop with a defect.

    ``defect`` is a defect H-… or S-… of the replaced system (docs/design/original-system.md), or
    the rule that the mutant breaks.  ``caught_by`` names the invariants and checks that are
    expected to detect it; any violation counts as detection.
    """

    id: str
    defect: str
    description: str
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
