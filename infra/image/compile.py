"""Compiles bytecode for a read-only image: ``compile.py [--standard-library] [FOLDER ...]``.

The bytecode is not checked against its source at import (PEP 552): an image never changes,
and each import saves one stat call.
"""

from __future__ import annotations

import compileall
import py_compile
import re
import sys
import sysconfig
import warnings

# Tests of packages are never imported, and some do not compile on purpose.
EXCLUDED = re.compile(r"/(tests?|idlelib|lib2to3|tkinter|turtledemo|ensurepip)/")


def main(arguments: list[str]) -> int:
    """The exit status: 1 when a file could not be compiled, else 0."""
    warnings.simplefilter("ignore")
    standard = sysconfig.get_path("stdlib")
    folders = [standard if name == "--standard-library" else name for name in arguments]
    compiled = [
        compileall.compile_dir(
            folder,
            maxlevels=50,
            quiet=1,
            rx=EXCLUDED,
            workers=0,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
        for folder in folders
    ]
    return 0 if all(compiled) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
