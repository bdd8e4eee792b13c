"""Creates a new function from the template: ``make new name=list_reviews``.

The new function runs at once: it has one public GET route that reads the time from the database.
"""

from __future__ import annotations

import keyword
import re
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from shop.registry import all_specs

ROOT = Path(__file__).resolve().parents[1]
TEMPLATES = Path(__file__).resolve().parent / "templates" / "function"
NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
# Kubernetes names have at most 63 characters; the platforms add prefixes and suffixes.
NAME_LENGTH_MAX = 40


class FunctionNotCreated(Exception):
    """The function was not created and nothing was written; the message is the reason."""


def main(name: Annotated[str, typer.Argument(help="verb_noun, such as list_reviews")]) -> None:
    """Create functions/NAME and its test."""
    try:
        written = make_function(name, ROOT)
    except FunctionNotCreated as error:
        typer.echo(f"new: {error}", err=True)
        raise typer.Exit(1) from error
    for path in written:
        typer.echo(f"  wrote {path.relative_to(ROOT)}")
    typer.echo(f"new: {name} serves GET {path_of(name)}. Next:")
    typer.echo("  make render     generates its manifests, routes and documents")
    typer.echo("  make test       runs its test and the rules for all functions")
    typer.echo("  docs/how-to/add-a-function.md explains each file")


def make_function(name: str, root: Path) -> list[Path]:
    """Writes ``functions/<name>`` and its test below ``root``; returns the files written.

    Raises ``FunctionNotCreated`` when the name is not verb_noun, or the function, its test or its
    route exists already.
    """
    _check_name(name)
    files = _files(name)
    for path in files:
        if (root / path).exists():
            raise FunctionNotCreated(f"{path} exists already")
    _check_route(path_of(name))
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    return [root / path for path in files]


def path_of(name: str) -> str:
    """The route a new function gets: its noun, so ``list_reviews`` serves ``/reviews``."""
    verb, _, noun = name.partition("_")
    return "/" + (noun or verb).replace("_", "-")


def _files(name: str) -> dict[Path, str]:
    folder = Path("functions") / name
    files = {folder / "__init__.py": ""}
    for file in ("spec.py", "schema.py", "handler.py", "main.py", "example.json"):
        files[folder / file] = _render(file, name)
    files[Path("tests/functions") / f"test_{name}.py"] = _render("test.py", name)
    return files


def _render(file: str, name: str) -> str:
    template = Template((TEMPLATES / f"{file}.tmpl").read_text("utf-8"))
    in_camel_case = "".join(word.capitalize() for word in name.split("_"))
    return template.substitute(name=name, Name=in_camel_case, path=path_of(name))


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
