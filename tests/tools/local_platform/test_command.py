"""``shop dev`` before the platform starts."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import cache_from_source
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_compile_code_writes_the_bytecode_of_every_function(tmp_path: Path) -> None:
    subprocess.run(
        [
            sys.executable,
            "-c",
            "from tools.local_platform.command import compile_code; compile_code()",
        ],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONPYCACHEPREFIX": str(tmp_path),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        check=True,
    )

    sources = [*ROOT.glob("functions/*/handler.py"), *ROOT.glob("shop/runtime/*.py")]
    missing = [source for source in sources if not _bytecode_of(source, tmp_path).is_file()]
    assert len(sources) > 20
    assert missing == []


def _bytecode_of(source: Path, prefix: Path) -> Path:
    name = Path(cache_from_source(str(source), optimization="")).name
    return prefix.joinpath(*source.parent.resolve().parts[1:], name)
