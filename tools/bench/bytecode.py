"""Compiles bytecode for everything that a benchmark starts, as the image build does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from sysconfig import get_paths

import functions

FOLDERS = ("events", "functions", "shop", "tools/bench/baselines")


def compile_everything() -> None:
    """Compiles the shop and all installed packages where bytecode is missing."""
    root = Path(next(iter(functions.__path__))).resolve().parent
    own = [str(root / folder) for folder in FOLDERS]
    installed = [get_paths()["stdlib"], get_paths()["purelib"]]
    # no check: some packages ship tests and templates that do not compile, on purpose
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "compileall",
        "-qq",
        "-x",
        r"/(lib2to3|tests?)/",
    ]
    subprocess.run([*command, *own, *installed], check=False, stdin=subprocess.DEVNULL)
