"""Bytecode for everything that a bench starts, as the image has it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from sysconfig import get_paths

import functions

FOLDERS = ("events", "functions", "shop", "tools/bench/baselines")


def compile_everything() -> None:
    """Compiles the shop and whatever is installed beside it, where it is not compiled yet."""
    root = Path(next(iter(functions.__path__))).resolve().parent
    own = [str(root / folder) for folder in FOLDERS]
    installed = [get_paths()["stdlib"], get_paths()["purelib"]]
    # no check: some packages ship tests and templates that are broken on purpose
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
