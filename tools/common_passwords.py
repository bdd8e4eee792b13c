"""Adds passwords to ``shop/adapters/common_passwords.txt.gz``, the list that registration rejects.

The list is that of zxcvbn 4.5.0 (``frequency_lists.py``, MIT licence, beside the list), and
passwords of Korean keyboards.  Passwords are read from standard input, one per line::

    python -c "from zxcvbn.frequency_lists import FREQUENCY_LISTS as lists
    print(*lists['passwords'], sep='\\n')" | python -m tools.common_passwords
"""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterable

from shop.adapters.passwords import (
    LENGTH_MIN,
    LIST_FILE,
    STEM_LENGTH_MIN,
    common_passwords,
    stem_of,
)


def main() -> int:
    """Adds the passwords of standard input; returns the number of entries of the list."""
    known = common_passwords().decode().split()
    entries = entries_of([*known, *sys.stdin.read().split()])
    text = "".join(f"{entry}\n" for entry in ["", *entries])
    LIST_FILE.write_bytes(gzip.compress(text.encode(), mtime=0))
    return len(entries)


def entries_of(passwords: Iterable[str]) -> list[str]:
    """What of each password is listed: its stem, and all of it if it is long enough to be used."""
    folded = {password.casefold() for password in passwords}
    stems = {stem for password in folded if len(stem := stem_of(password)) >= STEM_LENGTH_MIN}
    whole = {password for password in folded if len(password) >= LENGTH_MIN}
    return sorted(stems | {p for p in whole if len(stem_of(p)) < STEM_LENGTH_MIN})


if __name__ == "__main__":
    print(main())
