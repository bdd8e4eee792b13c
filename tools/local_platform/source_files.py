"""When the source of a function changed, so that its processes are replaced at the next request."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# what every function may import
SHARED = ("events", "shop")
CHECK_SECONDS = 0.2


class SourceVersion(NamedTuple):
    """The newest change in a function's source: when, in which file, and how many files exist."""

    changed_ns: int
    path: str
    files: int


class SourceFiles:
    """The Python files of functions below a root, read at most five times a second."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[str, tuple[float, SourceVersion]] = {}

    def version(self, function: str) -> SourceVersion:
        """The version of a function's own files and of those that functions share."""
        own = self._version_of(f"functions/{function}")
        versions = [own, *(self._version_of(folder) for folder in SHARED)]
        newest = max(versions)
        return SourceVersion(
            newest.changed_ns, newest.path, sum(version.files for version in versions)
        )

    def _version_of(self, folder: str) -> SourceVersion:
        now = time.monotonic()
        read_at, version = self._known.get(folder, (-CHECK_SECONDS, SourceVersion(0, "", 0)))
        if now - read_at >= CHECK_SECONDS:
            version = self._read(folder)
            self._known[folder] = (now, version)
        return version

    def _read(self, folder: str) -> SourceVersion:
        newest, path, files = 0, "", 0
        for entry in _python_files(self._root / folder):
            changed_ns = entry.stat().st_mtime_ns
            files += 1
            if changed_ns > newest:
                newest, path = changed_ns, os.path.relpath(entry.path, self._root)
        return SourceVersion(newest, path, files)


def _python_files(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            listed = list(entries)
    except OSError:  # an editor may replace a folder
        return
    for entry in listed:
        if entry.is_dir(follow_symlinks=False):
            if entry.name != "__pycache__":
                yield from _python_files(Path(entry.path))
        elif entry.name.endswith(".py"):
            yield entry
