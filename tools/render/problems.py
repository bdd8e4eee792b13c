"""Renders docs/reference/problems.md: every sentence of an error, by its code, in every language.

Reads them from the source by the rules of ``Source``, and raises ValueError for a sentence that it
cannot read or that a catalogue does not have.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from shop.primitives.languages import ENGLISH, LANGUAGES
from tools.render.documents import MARK

ROOT = Path(__file__).parent.parent.parent
PAGE = Path("docs/reference/problems.md")
# they answer brokers, clocks and the payment provider, or write to the log: English only
FOR_MACHINES = (
    "functions/payment_webhook",
    "shop/adapters/payment_provider",
    "shop/adapters/signatures.py",
    "shop/runtime/event_pipeline.py",
    "shop/runtime/log.py",
)
# ValueErrors of these modules are about fields of a body or query
VALIDATORS = (
    "functions/*/schema.py",
    "shop/request_models.py",
    "shop/accounts.py",
    "shop/adapters/passwords.py",
    "shop/primitives/text.py",
    "shop/runtime/model.py",
)
CODE = re.compile(r"[A-Z][A-Z_]+")
PLACEHOLDER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, order=True)
class Sentence:
    """A sentence in English, with the status and code of its error where they are known."""

    status: int
    code: str
    english: str


@dataclass(frozen=True)
class TakesText:
    """A function or class that takes a sentence, or the name of what it is about."""

    parameter: str
    position: int
    status: int = 0
    code: str = ""


ERRORS = {
    "ClientError": TakesText("message", 2),
    "Unavailable": TakesText("message", 0, 503, "UNAVAILABLE"),
    "Reject": TakesText("message", 1, 409),
}


@dataclass
class Source:
    """The sentences and words in the source.

    A sentence is what a parameter ``message`` receives, is assigned to a variable of this name, or
    is a validator's ValueError: a literal, or a ``Phrase``.  A word is what a parameter ``what``
    receives; ``not_found`` makes a sentence of it.
    """

    sentences: set[Sentence] = field(default_factory=set[Sentence])
    words: set[str] = field(default_factory=set[str])
    unreadable: list[str] = field(default_factory=list[str])

    def read(self, root: Path = ROOT) -> Source:
        """Reads all modules of functions and of the shop below a root; ValueError for the rest."""
        trees = {path: ast.parse(path.read_text("utf-8")) for path in _modules(root)}
        shared = shared_callables(root)
        for path, tree in trees.items():
            self.read_module(tree, shared | dict(_callables(tree)), path)
        if self.unreadable:
            raise ValueError("\n".join(self.unreadable))
        return self

    def read_module(self, tree: ast.Module, callables: dict[str, TakesText], path: Path) -> None:
        """Reads a module, or some definitions of one."""
        is_validator = any(path.match(pattern) for pattern in VALIDATORS)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                name = _name_of(node.func)
                if name in callables:
                    self._read_call(node, callables[name], path)
                elif name == "ValueError" and is_validator:
                    self._add(node.args[0], Sentence(0, "", ""), path)
            elif isinstance(node, ast.FunctionDef):
                self._read_variables(node, callables, path)
            elif isinstance(node, ast.Dict):
                for key, value in zip(node.keys, node.values, strict=True):
                    if isinstance(key, ast.Constant) and key.value == "message":
                        self._add(value, Sentence(0, "", ""), path)

    def _read_variables(
        self, function: ast.FunctionDef, callables: dict[str, TakesText], path: Path
    ) -> None:
        """What is assigned to ``message``, with the code of the next call that takes it."""
        nodes = sorted(
            (each for each in ast.walk(function) if isinstance(each, (ast.Assign, ast.Call))),
            key=lambda each: (each.lineno, each.col_offset),
        )
        assigned: list[ast.expr] = []
        for node in nodes:
            if isinstance(node, ast.Assign):
                assigned += [node.value] if _name_of(node.targets[0]) == "message" else []
            elif any(_name_of(each) == "message" for each in node.args):
                taken = callables.get(_name_of(node.func), TakesText("message", 0))
                status, code = _status_and_code(node)
                like = Sentence(status or taken.status, code or taken.code, "")
                for value in assigned:
                    self._add(value, like, path)
                assigned = []

    def _read_call(self, call: ast.Call, taken: TakesText, path: Path) -> None:
        given = [k.value for k in call.keywords if k.arg == taken.parameter]
        given += call.args[taken.position : taken.position + 1]
        if not given:
            return
        status, code = _status_and_code(call)
        like = Sentence(status or taken.status, code or taken.code, "")
        if taken.parameter == "message":
            self._add(given[0], like, path)
        elif isinstance(given[0], ast.Constant):
            word = str(given[0].value)
            if like.code == "NOT_FOUND":
                self.sentences.add(Sentence(404, like.code, f"{word} was not found"))
            else:
                self.words.add(word)

    def _add(self, expression: ast.expr, like: Sentence, path: Path) -> None:
        match expression:
            case ast.Constant(value=str(english)):
                self.sentences.add(Sentence(like.status, like.code, english))
            case ast.Call(func=ast.Name(id="Phrase"), args=[template, *_]):
                self._add(template, like, path)
            case ast.IfExp(body=body, orelse=orelse):
                self._add(body, like, path)
                self._add(orelse, like, path)
            case ast.JoinedStr() | ast.BinOp():
                self.unreadable.append(
                    f"{path}:{expression.lineno}: give the sentence as a literal, or as a Phrase "
                    "with its values"
                )
            case _:
                pass  # a variable or a parameter called message, which is read elsewhere


def shared_callables(root: Path = ROOT) -> dict[str, TakesText]:
    """What makes an error from a sentence, in all modules below a root, by name."""
    shared = dict(ERRORS)
    for path in _modules(root):
        shared.update(_callables(ast.parse(path.read_text("utf-8"))))
    return shared


def untranslated(source: Source, catalogue: dict[str, dict[str, str]]) -> list[str]:
    """What a catalogue lacks, has without need, or has with other placeholders."""
    english = {sentence.english for sentence in source.sentences}
    messages = catalogue["messages"]
    found = [f"messages: no translation of {text!r}" for text in sorted(english - messages.keys())]
    found += [f"messages: {text!r} is not used" for text in sorted(messages.keys() - english)]
    found += [
        f"words: no translation of {w!r}" for w in sorted(source.words - {*catalogue["words"]})
    ]
    statuses = {str(s.status) for s in source.sentences if s.status} - {*catalogue["titles"]}
    found += [f"titles: none of status {status}" for status in sorted(statuses)]
    for text, translated in messages.items():
        if sorted(PLACEHOLDER.findall(text)) != sorted(PLACEHOLDER.findall(translated)):
            found.append(f"messages: {text!r} is translated with other placeholders")
    return found


def catalogues() -> dict[str, dict[str, dict[str, str]]]:
    """The catalogue of each language other than English."""
    folder = ROOT / "shop/primitives"
    return {
        language: json.loads((folder / f"messages_{language}.json").read_text("utf-8"))
        for language in LANGUAGES
        if language != ENGLISH
    }


def render() -> dict[Path, str]:
    """The page; ValueError with everything that a catalogue lacks."""
    source = Source().read()
    translations = catalogues()
    lacking = [
        f"shop/primitives/messages_{language}.json: {text}"
        for language, catalogue in translations.items()
        for text in untranslated(source, catalogue)
    ]
    if lacking:
        raise ValueError("\n".join(lacking))
    codes: dict[tuple[str, int], list[str]] = {}
    fields: set[str] = set()
    for sentence in sorted(source.sentences):
        if sentence.code:
            codes.setdefault((sentence.code, sentence.status), []).append(sentence.english)
        else:
            fields.add(sentence.english)
    return {PAGE: _page(codes, fields, translations)}


def _page(
    codes: dict[tuple[str, int], list[str]],
    fields: set[str],
    translations: dict[str, dict[str, dict[str, str]]],
) -> str:
    languages = list(translations)
    header = " | ".join(["en", *languages])
    lines = [
        f"<!-- {MARK} -->",
        "",
        "# Errors",
        "",
        "Programs read the member `error` of a problem document (RFC 9457): its codes are the",
        "same in every language. `title`, `detail`, `message` and `errors[].message` are for",
        "people, in the language that `Accept-Language` prefers, English by default; `{…}` are",
        "values.",
        "",
        f"| `error` | status | {header} |",
        "|---|---|" + "---|" * (1 + len(languages)),
    ]
    for (code, status), sentences in sorted(codes.items()):
        for english in sentences:
            lines.append(f"| `{code}` | {status} | {_cells(english, translations)} |")
    lines += [
        "",
        "Sentences about a field of a body (`INVALID`, 422) or of a query (`BAD_QUERY`, 400),",
        "besides those of the validation library:",
        "",
        f"| {header} |",
        "|" + "---|" * (1 + len(languages)),
        *(f"| {_cells(english, translations)} |" for english in sorted(fields)),
        "",
    ]
    return "\n".join(lines)


def _cells(english: str, translations: dict[str, dict[str, dict[str, str]]]) -> str:
    texts = [english, *(catalogue["messages"][english] for catalogue in translations.values())]
    return " | ".join(text.replace("|", "\\|") for text in texts)


def _modules(root: Path) -> Iterator[Path]:
    for folder in ("functions", "shop"):
        for path in sorted((root / folder).rglob("*.py")):
            relative = path.relative_to(root).as_posix()
            if not relative.startswith(FOR_MACHINES):
                yield path


def _callables(tree: ast.Module) -> Iterator[tuple[str, TakesText]]:
    """Functions that make an error from their parameter ``message`` or ``what``."""
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef):
            continue
        calls = {_name_of(each.func) for each in ast.walk(node) if isinstance(each, ast.Call)}
        names = [each.arg for each in node.args.args]
        for name in {"message", "what"} & {*names} if calls & {"ClientError", "not_found"} else ():
            status, code = _status_and_code(node)
            if name == "what" and "not_found" in calls:
                status, code = 404, "NOT_FOUND"
            yield node.name, TakesText(name, names.index(name), status, code)


def _status_and_code(node: ast.AST) -> tuple[int, str]:
    """The first literals of a call, or of the first call of ClientError in a function."""
    if not isinstance(node, ast.Call):
        calls = (each for each in ast.walk(node) if isinstance(each, ast.Call))
        node = next((each for each in calls if _name_of(each.func) == "ClientError"), node)
    if not isinstance(node, ast.Call):
        return 0, ""
    literals = [each.value for each in node.args if isinstance(each, ast.Constant)]
    status = next((value for value in literals if type(value) is int), 0)
    code = next((v for v in literals if isinstance(v, str) and CODE.fullmatch(v)), "")
    return status, code


def _name_of(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
