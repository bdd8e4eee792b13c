"""Which errors an operation may answer: what its handler and its calls raise, from the source.

Follows the calls from a handler through ``functions`` and ``shop``, without the runtime, whose
errors every operation has.  A case of a ``match`` over classes is followed only for classes that
the followed source names: an operation that sends ``CancelRequested`` has the errors of that case.
"""

from __future__ import annotations

import ast
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tools.render.problems import ROOT, Sentence, Source, TakesText, shared_callables

RUNTIME = "shop.runtime"
Definition = ast.FunctionDef | ast.ClassDef
Place = tuple[str, str]  # a module and a name in it


@dataclass
class _Module:
    """A module's functions and classes, and the modules and names that it imports."""

    path: Path
    definitions: dict[str, Definition] = field(default_factory=dict[str, Definition])
    imports: dict[str, Place] = field(default_factory=dict[str, Place])


@cache
def errors_of(function: str, handler: str) -> frozenset[Sentence]:
    """The errors with a status and a code that a handler and what it calls may raise."""
    classes: set[str] = set()
    while True:
        followed = _Followed(classes)
        followed.follow((f"functions.{function}.handler", handler))
        if followed.named == classes:
            break
        classes = followed.named
    found = (each.sentences for each in followed.definitions.values())
    return frozenset(sentence for sentences in found for sentence in sentences)


@dataclass(frozen=True)
class _Definition:
    """A function or class without the cases of other classes: what it calls, and its errors."""

    calls: tuple[Place, ...]
    sentences: frozenset[Sentence]


@dataclass
class _Followed:
    """The definitions that were reached, and the classes that they name."""

    classes: set[str]
    named: set[str] = field(default_factory=set[str])
    definitions: dict[Place, _Definition] = field(default_factory=dict[Place, _Definition])

    def follow(self, place: Place) -> None:
        """Adds the definition at a place, and all that it calls."""
        module = _module(place[0])
        if module is None or place in self.definitions:
            return
        if place[1] not in module.definitions:
            if place[1] in module.imports:  # a handler in a module of its own
                self.follow(module.imports[place[1]])
            return
        matched = _matched_classes(module.definitions[place[1]]) & self.classes
        definition = _definition(place, frozenset(matched))
        self.definitions[place] = definition
        for called in definition.calls:
            if called[1][:1].isupper():
                self.named.add(called[1])
            self.follow(called)


@cache
def _definition(place: Place, classes: frozenset[str]) -> _Definition:
    """The definition at a place, with the cases of ``classes`` only."""
    module = _module(place[0])
    assert module is not None
    tree = _WithoutOtherCases(classes).visit(deepcopy(module.definitions[place[1]]))
    calls: list[Place] = []
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name):
                calls.append(module.imports.get(name, (place[0], name)))
            case ast.Attribute(value=ast.Name(id=owner), attr=name) if owner in module.imports:
                calls.append((".".join(module.imports[owner]), name))
            case _:
                pass
    source = Source()
    source.read_module(ast.Module([tree], []), _callables(), module.path.relative_to(ROOT))
    known = (each for each in source.sentences if each.status and each.code)
    return _Definition(tuple(dict.fromkeys(calls)), frozenset(known))


def _matched_classes(node: ast.AST) -> set[str]:
    """The names of the classes in the patterns of a definition or of a pattern."""
    names = (
        each.cls.attr if isinstance(each.cls, ast.Attribute) else each.cls.id
        for each in ast.walk(node)
        if isinstance(each, ast.MatchClass) and isinstance(each.cls, (ast.Name, ast.Attribute))
    )
    return {name for name in names if name[:1].isupper()}


class _WithoutOtherCases(ast.NodeTransformer):
    """Removes annotations, patterns, and cases of classes that are not among ``classes``."""

    def __init__(self, classes: frozenset[str]) -> None:
        self._classes = classes

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)

    def visit_Match(self, node: ast.Match) -> ast.AST:
        node.cases = [case for case in node.cases if self._may_match(case.pattern)]
        for case in node.cases:
            case.pattern = ast.MatchAs()
        return self.generic_visit(node)

    def _may_match(self, pattern: ast.pattern) -> bool:
        classes = _matched_classes(pattern)
        return not classes or bool(classes & self._classes)


def _path(module: str) -> Path:
    path = ROOT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def _callables() -> dict[str, TakesText]:
    return shared_callables()


@cache
def _module(name: str) -> _Module | None:
    """A module of functions or of the shop; None for one that is not followed."""
    if name.partition(".")[0] not in ("functions", "shop") or name.startswith(RUNTIME):
        return None
    if not _path(name).is_file():
        return None
    module = _Module(_path(name))
    tree = ast.parse(module.path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                module.imports[alias.asname or alias.name] = (node.module, alias.name)
    for node in tree.body:
        if isinstance(node, Definition):
            module.definitions[node.name] = node
    return module
