"""The code of an earlier release, which runs beside today's (F-21)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

# Migrates and seeds with the release's own code; its tools were in ``scripts`` at first.
PREPARE = """
import os
from {tools}.migrate import migrate
from {tools}.seed import seed
migrate(os.environ["DATABASE_URL"])
seed(os.environ["DATABASE_URL"])
"""
# Settings of today's processes while others run the release: what that cannot read is not written.
BESIDE = {"PAYMENT_ACTION_SECONDS": "0", "PAYMENT_TRANSFER_SECONDS": "0"}


@dataclass
class ReleaseBefore:
    """A release in a folder.

    ``share`` of the new processes of each function that it has run its code.  ``chosen`` counts all
    of these processes by function, ``started`` those that run it.
    """

    folder: Path
    share: float = 1.0
    started: Counter[str] = field(default_factory=Counter[str])
    chosen: Counter[str] = field(default_factory=Counter[str])

    @property
    def packages(self) -> Path:
        """What the release needs at run time, by its own lock."""
        return self.folder / "packages"

    @property
    def variables(self) -> dict[str, str]:
        """Variables with which Python imports this release instead of today's code."""
        return {
            "PYTHONPATH": os.pathsep.join((str(self.folder), str(self.packages))),
            "PYTHONSAFEPATH": "1",
        }

    def install(self) -> None:
        """Installs the packages of the release's lock.  Raises CalledProcessError."""
        lock = str(self.folder / "requirements.txt")
        options = ("--quiet", "--require-hashes", "--target", str(self.packages), "-r", lock)
        subprocess.run([sys.executable, "-m", "pip", "install", *options], check=True)

    def has(self, function: str) -> bool:
        """Whether the release has the function."""
        return (self.folder / "functions" / function / "spec.py").is_file()

    def choose(self, function: str) -> dict[str, str]:
        """``variables`` for the share of the function's processes, ``BESIDE`` for the others.

        Nothing once no process runs the release.
        """
        if not self.has(function):
            return {}
        self.chosen[function] += 1
        number = self.chosen[function]
        if int(number * self.share) == int((number - 1) * self.share):
            return BESIDE if self.share else {}
        self.started[function] += 1
        return self.variables

    def prepare(self, admin_url: str) -> None:
        """Migrates and seeds an empty database.  Raises CalledProcessError."""
        tools = "tools" if (self.folder / "tools/migrate.py").is_file() else "scripts"
        subprocess.run(
            [sys.executable, "-c", PREPARE.format(tools=tools)],
            env={**os.environ, **self.variables, "DATABASE_URL": admin_url},
            check=True,
        )
