"""Finds the SQL of the code: named constants as they are sent, and whatever hides elsewhere."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLACES = ("shop", "functions", "tools", "chaos")
# Benches fill databases of their own; the sandbox, the desk and whoever plays clients have others;
# a mutant is nobody's SQL.
ELSEWHERE = (
    "tools/bench/",
    "tools/payment_simulator/",
    "tools/local_platform/",
    "tools/e2e/",
    "chaos/workload/",
    "chaos/mutation_tests/",
    "shop/schema/",
)
STATEMENT = re.compile(r"\s*(select|insert into|update|delete from|with)\s", re.IGNORECASE)
OURS = re.compile(r"\bshop\.\w+")


@dataclass(frozen=True)
class SqlConstant:
    """A statement and where it stands."""

    path: str
    name: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.name}"


def sources() -> Iterator[tuple[str, ast.Module]]:
    """Every module of the shop that talks to its database, parsed."""
    for place in PLACES:
        for path in sorted((ROOT / place).rglob("*.py")):
            relative = path.relative_to(ROOT).as_posix()
            if not relative.startswith(ELSEWHERE):
                yield relative, ast.parse(path.read_text(encoding="utf-8"), relative)


def named_constants() -> list[SqlConstant]:
    """Module-level UPPERCASE strings that are SQL."""
    return [
        SqlConstant(path, name, text)
        for path, tree in sources()
        for statement in tree.body
        for name, text in _assigned(statement)
        if STATEMENT.match(text)
    ]


def _assigned(statement: ast.stmt) -> Iterator[tuple[str, str]]:
    if isinstance(statement, ast.Assign):
        targets, value = statement.targets, statement.value
    elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
        targets, value = [statement.target], statement.value
    else:
        return
    for target in targets:
        is_name = isinstance(target, ast.Name) and target.id.isupper()
        if is_name and isinstance(value, ast.Constant) and isinstance(value.value, str):
            yield target.id, value.value


def prepared_constants() -> list[SqlConstant]:
    """The statements as they are sent: UPPERCASE values of the modules, put together or not."""
    found = []
    for path, _ in sources():
        if path.endswith("__main__.py"):
            continue
        module = import_module(path.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
        for name, value in vars(module).items():
            is_ours = name.isupper() and not name.startswith("_")
            for text in value.values() if isinstance(value, dict) else (value,):
                if is_ours and isinstance(text, str) and STATEMENT.match(text):
                    found.append(SqlConstant(path, name, text))
    return found


def all_strings() -> Iterator[tuple[str, str]]:
    """Every string in the code that is not a docstring."""
    for path, tree in sources():
        docstrings = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
            if is_text and id(node) not in docstrings:
                yield path, node.value
