"""Finds the SQL of the code: named constants as they are sent, and SQL texts anywhere else."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import cast

from shop.adapters.statements import Query, Row

ROOT = Path(__file__).resolve().parents[2]
PLACES = ("shop", "functions", "tools", "chaos")
# These have no SQL for the shop's database: benches, the payment simulator and the local platform
# have their own, clients have none, and mutants are not sent.
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
    """A statement, where it is defined, and the type of its rows if it is a ``Query``."""

    path: str
    name: str
    text: str
    row_type: type[Row] | None = None

    def __str__(self) -> str:
        return f"{self.path}:{self.name}"


def sources() -> Iterator[tuple[str, ast.Module]]:
    """Every module that queries the shop's database, parsed."""
    for place in PLACES:
        for path in sorted((ROOT / place).rglob("*.py")):
            relative = path.relative_to(ROOT).as_posix()
            if not relative.startswith(ELSEWHERE):
                yield relative, ast.parse(path.read_text(encoding="utf-8"), relative)


def named_constants() -> list[SqlConstant]:
    """Module-level UPPERCASE constants that are SQL texts or queries with one."""
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
        text = _text_in(value)
        if isinstance(target, ast.Name) and target.id.isupper() and text is not None:
            yield target.id, text


def _text_in(value: ast.expr) -> str | None:
    """The text of ``"…"``, ``Query(RowType, "…")`` or ``Command("…")``."""
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.args:
        return _text_in(value.args[-1]) if value.func.id in ("Query", "Command") else None
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return value.value
    return None


def prepared_constants() -> list[SqlConstant]:
    """The statements as they are sent: UPPERCASE values of the modules, composed or not."""
    found: list[SqlConstant] = []
    for path, _ in sources():
        if path.endswith("__main__.py"):
            continue
        module = import_module(path.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
        for name, value in vars(module).items():
            if name.isupper() and not name.startswith("_"):
                found.extend(_constants(path, name, value))
    return found


def _constants(path: str, name: str, value: object) -> Iterator[SqlConstant]:
    """The SQL in one constant, or in the values of a dict."""
    if isinstance(value, dict):
        for member in cast("dict[object, object]", value).values():
            yield from _constants(path, name, member)
    elif isinstance(value, Query):
        # isinstance cannot see the row type; every query has one
        query = cast("Query[Row]", value)
        if STATEMENT.match(query.sql):
            yield SqlConstant(path, name, query.sql, query.row_type)
    elif isinstance(value, str) and STATEMENT.match(value):
        yield SqlConstant(path, name, value)


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
            if (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and id(node) not in docstrings
            ):
                yield path, node.value
