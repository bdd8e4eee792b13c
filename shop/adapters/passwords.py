"""Password hashes with Argon2id (RFC 9106, OWASP parameters), and a list of common passwords.

A password is prepared as an OpaqueString (RFC 8265) before it is hashed, so that é typed on macOS
and on Windows is one password.  Hashes made before this rule are of passwords as they were typed;
``matching_form`` compares that form too, and log-in then renews the hash.

A hash takes 19 MiB and about 22 ms of one core.  ``HASHES_AT_ONCE`` dedicated threads compute them,
which limits the memory: no more blocks are in use at a time, and because the allocator keeps a
freed block with its thread, no more are kept either (measured with 50 concurrent log-ins: 447 MiB
when 17 request threads hash, 201 MiB with the pool).
"""

from __future__ import annotations

import os
import threading
import unicodedata
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from shop.primitives.errors import ClientError, Unavailable
from shop.primitives.text import compose

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

Result = TypeVar("Result")

LENGTH_MIN = 8
LENGTH_MAX = 128

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
        raise ValueError(f"a password has {LENGTH_MIN} to {LENGTH_MAX} characters")
    if any(unicodedata.category(c) == "Cc" for c in prepared):
        raise ValueError("a password has no control characters")
    return prepared


def needs_rehash(stored_hash: str) -> bool:
    """Whether a hash has other than the current parameters."""
    return not stored_hash.startswith(PARAMETERS)


def check_not_common(password: str, email: str) -> None:
    """Rejects common passwords with 422 ``WEAK_PASSWORD``.

    Not the e-mail address or its part before the @; not one of the well-known passwords below, in
    whatever case.
    """
    folded = password.casefold()
    if folded in (email.casefold(), email.casefold().partition("@")[0]):
        raise _weak("a password must not be the e-mail address")
    if folded in COMMON or len(set(folded)) == 1:
        raise _weak("this password is on every list of common passwords")


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


# Common passwords of at least eight characters, in lower case: the top of the published lists,
# keyboard walks of Latin and Korean layouts, years, and variations of the word shop.
COMMON = frozenset(
    # in one text: as separate literals they would be more than five hundred lines
    """
    00000000 01234567 012345678 0123456789 09876543 0987654321 10101010 11111111 111111111
    1111111111 11112222 11223344 1122334455 112233445566 12121212 12312312 123123123 1231231234
    123321123 12341234 1234512345 12344321 123456123456 12345678 123456789 1234567890 12345678910
    1234567891 123456789a 123456789q 12345678a 12345678q 123456abc 123456aa 12345qwert 1234qwer
    1234abcd 1234asdf 123654789 123qweasd 123qweasdzxc 123qwe123 13131313 13579246 135792468
    14141414 147258369 147852369 159357456 159753456 18181818 19191919 19801980 19811981 19821982
    19831983 19841984 19851985 19861986 19871987 19881988 19891989 19901990 19911991 19921992
    19931993 19941994 19951995 19961996 19971997 19981998 19991999 1a2b3c4d 1a2b3c4d5e 1q2w3e4r
    1q2w3e4r! 1q2w3e4r5t 1q2w3e4r5t6y 1q2w3e4r@@ 1qaz2wsx 1qaz2wsx3edc 1qaz!qaz 1qaz@wsx 1qazxsw2
    1qazzaq1 20002000 20012001 20022002 20202020 20212021 20222022 20232023 20242024 20252025
    20262026 21212121 22222222 23232323 24682468 25252525 321321321 33333333 36925814 369258147
    44444444 456456456 4815162342 55555555 66666666 69696969 741852963 77777777 789456123
    7894561230 789789789 852456789 87654321 88888888 963852741 98765432 987654321 9876543210
    99999999 a1234567 a12345678 a123456789 a1a2a3a4 a1b2c3d4 a1s2d3f4 aa123456 aa12345678
    aaaa1111 aaaaaa11 aaaaaaaa abababab abc12345 abc123456 abc123abc abcabc123 abcd1234 abcd12345
    abcdabcd abcdef12 abcdef123 abcdefgh abcdefghi access14 admin123 admin1234 admin12345
    admin123456 adminadmin administrator alexander alexandra amsterdam angel123 anthony1 apple123
    arsenal1 asd12345 asdasd123 asdasdasd asdf1234 asdfasdf asdfghjk asdfghjkl asdfqwer asdqwe123
    ashley12 azerty123 azertyuiop babygirl babygirl1 baseball baseball1 basketball batman123
    beautiful benjamin blink182 bluebird brandon1 bubbles1 butterfly changeme changeme1
    changeme123 charlie1 charlotte cheese123 chelsea1 chocolate chocolate1 christian christine
    christopher computer computer1 cookie123 corvette cristina daniel123 darkness default1
    destiny1 dolphin1 dolphins dragon123 dragonball drowssap einstein elephant elizabeth
    everything facebook facebook1 ferrari1 fireball firebird flower123 football
    football1 football123 forever1 forever21 freedom1 friends1 fuckyou1 gabriel1 garfield
    george123 gfhjkm123 ginger12 goodluck google123 guest123 guestguest hannah123 hardcore
    harley12 hello123 hello1234 hellohello hellokitty helpdesk hunter12 hunter22 iloveyou
    iloveyou! iloveyou1 iloveyou12 iloveyou123 iloveyou2 iloveyou3 infinity internet isabella
    jackson1 jasmine1 jennifer jennifer1 jessica1 jonathan jordan23 jordan123 jupiter1 justin123
    kimberly korea123 korea1234 lakers24 laptop123 letmein1 letmein! letmein12 letmein123
    liverpool liverpool1 london123 loveyou1 loveyou123 lovelove lovely123 madison1 manchester
    marlboro master12 master123 matthew1 maverick mercedes metallica michael1 michelle michelle1
    midnight minecraft minecraft1 monkey12 monkey123 monster1 monster123 mustang1 mypassword
    mypassword1 naruto123 nicholas nicole12 nintendo nothing1 november october10 p4ssw0rd
    p@ssw0rd p@ssw0rd1 p@ssw0rd123 p@ssword p@ssword1 pa$$w0rd pa$$word pa55w0rd pa55word
    passport password password! password0 password00 password01 password1 password1! password11
    password12 password123 password123! password1234 password12345 password2 password2023
    password2024 password2025 password2026 password21 password22 password3 password4 password5
    password7 password8 password9 password99 passw0rd passw0rd! passw0rd1 passw0rd123 passwort
    passwort1 patrick1 patricia pepper12 playstation pokemon1 pokemon123 precious
    princess princess1 princess12 princess123 q1w2e3r4 q1w2e3r4! q1w2e3r4t5 q1w2e3r4t5y6 qazwsx12
    qazwsx123 qazwsxedc qazwsxedc123 qwaszx12 qwe12345 qwe123456 qwe123qwe qwe123!@# qweasd123
    qweasdzx qweasdzxc qweqwe123 qweqweqwe qwer1234 qwer1234! qwer1234@ qwer12345 qwerasdf
    qwerasdfzxcv qwerqwer qwert123 qwert1234 qwert12345 qwerty12 qwerty123 qwerty1234 qwerty12345
    qwerty123456 qwertyqwerty qwertyui qwertyuiop qwertyuiop123 qwertz123 rainbow1 rainbow123
    rangers1 rebecca1 remember richard1 root1234 rootroot rootroot1 samantha samsung1 samsung123
    sebastian secret12 secret123 secret1234 secretsecret september shadow12 shadow123 shopping
    shopping1 shopping123 shopshop slipknot snowball snowboard soccer12 soccer123 spider123
    spiderman spongebob starwars starwars1 stephanie strawberry success1 summer12 summer123
    summer2024 summer2025 sunflower sunshine sunshine1 sunshine123 superman superman1 superstar
    swordfish sysadmin system123 taylor13 temp1234 temppass test1234 test12345
    test123456 tester123 testing1 testing123 testtest testtest1 thomas123 thunder1 tigger12
    tinkerbell toor1234 trustno1 trustno1! tweety12 unicorn1 universe user1234 useruser vanessa1
    vanilla1 veronica victoria victory1 volleyball warcraft welcome1 welcome12 welcome123
    welcome1234 welcome2024 welcome2025 whatever whatever1 william1 windows1 windows10 winner123
    winter2024 winter2025 wordpass xbox360x zaq12wsx zaq1xsw2 zaq1zaq1 zaqwsxcde zxc12345
    zxcvbnm1 zxcvbnm123 zxcvbnmasd zxcv1234 zxcvzxcv zxczxczxc qlalfqjsgh qlalfqjsgh1
    dkssudgktpdy dkssud12 dkssud123 tkfkdgo1 tkfkdgo12 tkfkdgody tkfkdgo486 gkrtod12 eogksalsrnr
    eoskan12 wkdrns12 tkatjd12 tkatjd123 rlarlarla rlaclwlro chlrkd12 비밀번호1234
    비밀번호비밀번호 대한민국대한민국 안녕하세요안녕하세요
    """.split()  # noqa: SIM905
)
