"""The code of released versions, from the repository's history."""

from __future__ import annotations

import subprocess
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).resolve().parents[1]
# The last commit of each released version.
COMMITS = {"0.1.0": "e7ea65cc2e7d46a22ba146e853d3208713c1d195"}


class ReleaseMissing(RuntimeError):
    """The history of this clone has no such commit."""


def extract(version: str, folder: Path) -> Path:
    """Writes the files of the version into the folder, which is created, and returns it.

    Raises ReleaseMissing in a shallow clone or outside one.
    """
    archived = subprocess.run(
        ["git", "archive", "--format=zip", COMMITS[version]],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if archived.returncode != 0:
        reason = archived.stderr.decode(errors="replace").strip()
        raise ReleaseMissing(
            f"version {version} is not in the history of this clone ({reason});"
            " in a shallow clone run: git fetch --unshallow"
        )
    with ZipFile(BytesIO(archived.stdout)) as files:
        files.extractall(folder)
    return folder
