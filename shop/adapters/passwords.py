"""Password hashes with Argon2id (RFC 9106, OWASP parameters), and a list of common passwords.

A password is prepared as an OpaqueString (RFC 8265) before it is hashed, so that é typed on macOS
and on Windows is one password.  Hashes made before this rule are of passwords as they were typed;
``matching_form`` compares that form too, and log-in then renews the hash.

The list is read at the first registration, so no cold start pays for it.

A hash takes 19 MiB and about 22 ms of one core.  ``HASHES_AT_ONCE`` dedicated threads compute them,
which limits the memory: no more blocks are in use at a time, and because the allocator keeps a
freed block with its thread, no more are kept either (measured with 50 concurrent log-ins: 447 MiB
when 17 request threads hash, 201 MiB with the pool).
"""

from __future__ import annotations

import os
import re
import threading
import unicodedata
import zlib
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from shop.primitives.errors import ClientError, Unavailable
from shop.primitives.languages import Phrase
from shop.primitives.text import compose

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

Result = TypeVar("Result")

LENGTH_MIN = 8
LENGTH_MAX = 128

# made by tools.common_passwords
LIST_FILE = Path(__file__).with_name("common_passwords.txt.gz")
STEM_LENGTH_MIN = 4
SIGNS = "".join(chr(code) for code in range(0x20, 0x7F) if not chr(code).isalnum())

MEMORY_KIB = 19_456
PASSES = 2
PARALLELISM = 1
SALT_BYTES = 16
HASH_BYTES = 32
HASHES_AT_ONCE = 4
WAIT_SECONDS = 4.0  # shorter than the 5 s that a transaction may idle

PARAMETERS = f"$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p={PARALLELISM}$"

# A random hash that no password has.  Verifying against it takes as long as against a real one, so
# the response time does not show whether an e-mail is registered.
DUMMY_HASH = f"{PARAMETERS}b3JkZXJwbGFjZWRwYWlkMQ$9Jc0Hn2mWqVfK7tYxLsBdE4uRgAoZiP1TNhSk8CvQeM"

_pools: list[ThreadPoolExecutor] = []
_creating = threading.Lock()


def hash_password(password: str) -> str:
    """The Argon2id hash in PHC form, with a fresh salt, of a prepared password; every byte counts.

    Raises ``Unavailable`` when the process is busy with other hashes for ``WAIT_SECONDS``.
    """
    return _run_in_pool(lambda: _hash(password))


def matching_form(password: str, stored_hash: str) -> str | None:
    """The form of ``password`` that was hashed, prepared or else as typed; None for neither.

    ``Unavailable`` as in ``hash_password``.
    """
    for form in dict.fromkeys((prepare(password), password)):
        if _run_in_pool(partial(_verify, form, stored_hash)):
            return form
    return None


def prepare(password: str) -> str:
    """The password as an OpaqueString: spaces of other kinds are spaces, letters are composed.

    ``ValueError`` when it is longer than ``LENGTH_MAX``.
    """
    spaced = "".join(" " if unicodedata.category(c) == "Zs" else c for c in password)
    return compose(spaced, length_max=LENGTH_MAX)


def prepare_new(password: str) -> str:
    """A prepared password of 8 to 128 code points without control characters, or ``ValueError``."""
    prepared = prepare(password)
    if len(prepared) < LENGTH_MIN:
        raise ValueError(
            Phrase("a password has {least} to {most} characters", least=LENGTH_MIN, most=LENGTH_MAX)
        )
    if any(unicodedata.category(c) == "Cc" for c in prepared):
        raise ValueError("a password has no control characters")
    return prepared


def needs_rehash(stored_hash: str) -> bool:
    """Whether a hash has other than the current parameters."""
    return not stored_hash.startswith(PARAMETERS)


def check_not_common(password: str, *, email: str, shop_names: tuple[str, ...]) -> None:
    """Rejects passwords that are easy to guess with 422 ``WEAK_PASSWORD``, in whatever case.

    Those are a common password, also with other digits and signs after it, and what consists of
    words of the e-mail address or of the shop's names, digits and signs.
    """
    folded = password.casefold()
    forms = {folded, folded.rstrip(SIGNS), stem_of(folded)}
    listed = common_passwords()
    is_listed = any(
        f"\n{form}\n".encode() in listed for form in forms if len(form) >= STEM_LENGTH_MIN
    )
    if is_listed or len(set(folded)) == 1:
        raise _weak("this password is on every list of common passwords")
    names = [name.casefold() for name in (email, *shop_names)]
    words = {*names, *(word for name in names for word in re.split(r"[\W\d_]+", name))}
    found = sorted((w for w in words if len(w) >= STEM_LENGTH_MIN and w in folded), key=len)
    if found and len(_letters_without(folded, found)) < STEM_LENGTH_MIN:
        raise _weak("a password must not consist of the e-mail address or the shop's name")


def stem_of(password: str) -> str:
    """The password without the digits and signs at its end, which are what people change."""
    return re.sub(r"[\W\d_]+$", "", password)


@cache
def common_passwords() -> bytes:
    """The common passwords, each between line feeds; read at the first registration."""
    return zlib.decompress(LIST_FILE.read_bytes(), wbits=31)


def _letters_without(password: str, words: list[str]) -> str:
    for word in reversed(words):  # the longest first
        password = password.replace(word, "0")
    return re.sub(r"[\W\d_]+", "", password)


def _weak(message: str) -> ClientError:
    return ClientError(422, "WEAK_PASSWORD", message)


def _hash(password: str) -> str:
    from argon2.low_level import Type, hash_secret  # imported here: 13 ms, for two functions

    return hash_secret(
        password.encode(),
        os.urandom(SALT_BYTES),
        time_cost=PASSES,
        memory_cost=MEMORY_KIB,
        parallelism=PARALLELISM,
        hash_len=HASH_BYTES,
        type=Type.ID,
    ).decode()


def _verify(password: str, stored_hash: str) -> bool:
    from argon2.exceptions import VerifyMismatchError
    from argon2.low_level import Type, verify_secret

    try:
        return verify_secret(stored_hash.encode(), password.encode(), Type.ID)
    except VerifyMismatchError:
        return False


def _run_in_pool(work: Callable[[], Result]) -> Result:
    """The result of ``work``, run by one of the hashing threads."""
    future = _hash_pool().submit(work)
    try:
        return future.result(timeout=WAIT_SECONDS)
    except TimeoutError as error:
        future.cancel()
        raise Unavailable("too many people are signing in at this moment") from error


def _hash_pool() -> ThreadPoolExecutor:
    from concurrent.futures import ThreadPoolExecutor  # imported here: it loads logging

    with _creating:  # two pools would run twice as many hashes
        if not _pools:
            _pools.append(ThreadPoolExecutor(HASHES_AT_ONCE, thread_name_prefix="argon2"))
        return _pools[0]
