"""Creates a function from a template: ``make new name=list_reviews``, or with ``kind=tick``.

The new function runs at once: a public GET route counts the categories, or a run once a day reads
the database's time.  The tables of all routes and schedules get its row, so that every test passes
before it is edited.
"""

from __future__ import annotations

import json
import keyword
import re
from enum import StrEnum
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from shop.registry import all_specs

ROOT = Path(__file__).resolve().parents[1]
TEMPLATES = Path(__file__).resolve().parent / "templates"
NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
# Kubernetes names have at most 63 characters; the platforms add prefixes and suffixes.
NAME_LENGTH_MAX = 40

MATRIX = Path("tests/security/test_authorisation_matrix.py")
MATRIX_ROW = re.compile(r"^    \(\"[A-Z]+\", \"/.*\),$", re.MULTILINE)
ROUND_TRIPS = Path("docs/reference/round-trips.json")
# of the handlers in the templates: begin, select, commit
TEMPLATE_ROUND_TRIPS = 3


class Kind(StrEnum):
    """What starts the new function: a request or the clock."""

    ROUTE = "route"
    TICK = "tick"


FILES = {
    Kind.ROUTE: ("spec.py", "schema.py", "handler.py", "example.json"),
    Kind.TICK: ("spec.py", "handler.py", "example.json"),
}


class FunctionNotCreated(Exception):
    """The function was not created and nothing was written; the message is the reason."""


def main(
    name: Annotated[str, typer.Argument(help="verb_noun, such as list_reviews")],
    kind: Annotated[Kind, typer.Option(help="what starts it")] = Kind.ROUTE,
) -> None:
    """Create functions/NAME, its test, and its rows in the tables of all routes and schedules."""
    try:
        written = make_function(name, ROOT, kind)
    except FunctionNotCreated as error:
        typer.echo(f"new: {error}", err=True)
        raise typer.Exit(1) from error
    for path in written:
        typer.echo(f"  wrote {path.relative_to(ROOT)}")
    starts = "runs at 04:00 UTC" if kind is Kind.TICK else f"serves GET {path_of(name)}"
    typer.echo(f"new: {name} {starts}. Next:")
    typer.echo("  make render     generates its manifests, routes and documents")
    typer.echo("  make test       runs its test and the rules for all functions")
    typer.echo("  docs/how-to/add-a-function.md explains each file")


def make_function(name: str, root: Path, kind: Kind = Kind.ROUTE) -> list[Path]:
    """Writes ``functions/<name>`` and its test below ``root``; returns the files written.

    Adds the route to the authorisation matrix, and the operation to the counts of round trips.
    Raises ``FunctionNotCreated`` when the name is not verb_noun, or the function, its test or its
    route exists already.
    """
    _check_name(name)
    files = _files(name, kind)
    for path in files:
        if (root / path).exists():
            raise FunctionNotCreated(f"{path} exists already")
    if kind is Kind.ROUTE:
        _check_route(path_of(name))
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    return [*(root / path for path in files), *_add_rows(name, root, kind)]


def path_of(name: str) -> str:
    """The route a new function gets: its noun, so ``list_reviews`` serves ``/reviews``."""
    verb, _, noun = name.partition("_")
    return "/" + (noun or verb).replace("_", "-")


def _files(name: str, kind: Kind) -> dict[Path, str]:
    folder = Path("functions") / name
    files = {folder / "__init__.py": "", folder / "main.py": _render(Path("main.py"), name)}
    for file in FILES[kind]:
        files[folder / file] = _render(kind / Path(file), name)
    files[Path("tests/functions") / f"test_{name}.py"] = _render(kind / Path("test.py"), name)
    return files


def _render(file: Path, name: str) -> str:
    template = Template((TEMPLATES / f"{file}.tmpl").read_text("utf-8"))
    in_camel_case = "".join(word.capitalize() for word in name.split("_"))
    return template.substitute(
        name=name, Name=in_camel_case, path=path_of(name), schedule=_schedule_of(name)
    )


def _schedule_of(name: str) -> str:
    return name.replace("_", "-")


def _add_rows(name: str, root: Path, kind: Kind) -> list[Path]:
    """Adds the new operation to the tables of all; returns the files changed."""
    match kind:
        case Kind.ROUTE:
            _state_who_may_call(path_of(name), root / MATRIX)
            _state_round_trips(f"GET {path_of(name)}", root / ROUND_TRIPS)
            return [root / MATRIX, root / ROUND_TRIPS]
        case Kind.TICK:
            _state_round_trips(f"{name}: {_schedule_of(name)}", root / ROUND_TRIPS)
            return [root / ROUND_TRIPS]


def _state_who_may_call(route: str, matrix: Path) -> None:
    """Adds the row after the last one: the route of the template is public."""
    text = matrix.read_text("utf-8")
    end = [row.end() for row in MATRIX_ROW.finditer(text)][-1]
    row = f'\n    ("GET", "{route}"): open_to_all(200),'
    matrix.write_text(text[:end] + row + text[end:], encoding="utf-8")


def _state_round_trips(operation: str, counts: Path) -> None:
    counted = {**json.loads(counts.read_text("utf-8")), operation: TEMPLATE_ROUND_TRIPS}
    counts.write_text(json.dumps(counted, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name) or keyword.iskeyword(name) or len(name) > NAME_LENGTH_MAX:
        raise FunctionNotCreated(
            f"{name!r} is not a valid function name: use verb_noun in lower case, such as "
            f"list_reviews, with at most {NAME_LENGTH_MAX} characters"
        )


def _check_route(path: str) -> None:
    for spec in all_specs():
        if any(route.method == "GET" and route.path == path for route in spec.routes):
            raise FunctionNotCreated(
                f"GET {path} is already a route of {spec.name}; choose another noun"
            )


if __name__ == "__main__":
    typer.run(main)
