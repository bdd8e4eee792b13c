"""``python -m shop.runtime <function> [<function> …]``: the command of every container."""

from __future__ import annotations

import os
import sys

from shop.runtime.server import serve


def main(arguments: list[str]) -> int:
    """Serves the named functions, or those in FUNCTION_NAME; 2 for wrong arguments."""
    names = arguments or os.environ.get("FUNCTION_NAME", "").replace(",", " ").split()
    if not names:
        sys.stderr.write("usage: python -m shop.runtime <function> [<function> ...]\n")
        return 2
    try:
        return serve([name.replace("-", "_") for name in names])
    except LookupError as error:
        sys.stderr.write(f"{error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
