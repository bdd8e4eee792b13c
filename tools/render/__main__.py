"""Writes every generated file from the functions' specs: ``python -m tools.render [--check]``.

``--check`` writes nothing, names each file that differs from the specs, and exits 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
RENDERERS = (
    "age_limits",
    "openapi",
    "asyncapi",
    "chart",
    "compose",
    "events",
    "edge",
    "envoy",
    "gateway",
    "http_limits",
    "knative",
    "observability",
    "openfaas",
    "pictures",
    "privacy",
    "problems",
    "reference",
    "tables",
    "typescript",
)
# these folders hold generated files and READMEs only: any other file is an orphan
GENERATED_FOLDERS = (
    Path("events/schemas"),
    Path("functions/api_docs/assets/rendered"),
    Path("helm/msa-shop/files"),
    Path("infra/knative"),
    Path("infra/observability/dashboards"),
    Path("web/public/assets"),
)


def render_all() -> dict[Path, str]:
    """Every generated file's text, by path from the repository's root.

    Raises ValueError when two renderers write the same file.
    """
    files: dict[Path, str] = {}
    for name in RENDERERS:
        rendered = import_module(f"tools.render.{name}").render()
        twice = files.keys() & rendered.keys()
        if twice:
            raise ValueError(f"{name} renders a file of another renderer: {min(twice)}")
        files.update(rendered)
    return files


def drift(root: Path, files: Mapping[Path, str]) -> list[str]:
    """A sentence for each file below ``root`` that is missing, different or orphaned."""
    found: list[str] = []
    for path, text in sorted(files.items()):
        if not (root / path).is_file():
            found.append(f"{path} is missing")
        elif (root / path).read_bytes() != text.encode():
            found.append(f"{path} differs from the specs")
    return found + [f"{path} has no renderer" for path in orphans(root, files)]


def orphans(root: Path, files: Mapping[Path, str]) -> list[Path]:
    """Files in the generated folders that nothing renders."""
    present = {
        path.relative_to(root)
        for folder in GENERATED_FOLDERS
        for path in (root / folder).rglob("*")
        if path.is_file() and path.name != "README.md"
    }
    return sorted(present - files.keys())


def write(root: Path, files: Mapping[Path, str]) -> list[str]:
    """Writes these files below ``root`` and deletes orphans; returns the differences found."""
    found = drift(root, files)
    for path, text in files.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.is_file() or target.read_bytes() != text.encode():
            target.write_bytes(text.encode())
    for path in orphans(root, files):
        (root / path).unlink()
    return found


def main(arguments: list[str] | None = None, *, root: Path = ROOT) -> int:
    """The exit status: 1 when ``--check`` finds drift, else 0."""
    parser = argparse.ArgumentParser(prog="python -m tools.render", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 on drift")
    check = parser.parse_args(arguments).check
    files = render_all()
    found = drift(root, files) if check else write(root, files)
    for sentence in found:
        print(sentence, file=sys.stderr if check else sys.stdout)
    print(f"{len(files)} generated files, {len(found)} {'drifted' if check else 'changed'}")
    return 1 if check and found else 0


if __name__ == "__main__":
    sys.exit(main())
