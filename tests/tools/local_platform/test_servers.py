"""The embedded PostgreSQL and Redis: data, restarts, and exit with their parent process."""

# Files are written one at a time while another process looks at them.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from urllib.parse import urlsplit

import psycopg
import pytest

import tools.local_platform.servers as servers
from tools.local_platform.function_environment import url_of_role
from tools.local_platform.servers import PostgresServer, postgres, redis

ROOT = Path(__file__).parents[3]


def refuses_connections(url: str) -> bool:
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 0), timeout=1).close()
    except ConnectionRefusedError:
        return True
    except OSError:  # it is stopping
        return False
    return False


def test_postgres_keeps_its_data_and_stops_after_the_block(tmp_path: Path) -> None:
    with postgres(tmp_path) as url, psycopg.connect(url) as connection:
        connection.execute("create table kept (value text)")
        connection.execute("insert into kept values ('테스트')")
    assert refuses_connections(url)

    with postgres(tmp_path) as url, psycopg.connect(url) as connection:
        assert connection.execute("select value from kept").fetchone() == ("테스트",)
        assert connection.execute("show fsync").fetchone() == ("on",)
        assert connection.execute("show unix_socket_directories").fetchone() == ("",)


def test_postgres_restarts_while_a_backend_of_the_killed_server_runs(tmp_path: Path) -> None:
    """PostgreSQL does not open the cluster until that backend has exited."""
    server = PostgresServer(tmp_path, durable=False)
    with ThreadPoolExecutor(1) as executor, closing_server(server):
        url = server.start()
        work = executor.submit(run_busy_query, url)
        wait_for_busy_query(url)

        server.stop(signal.SIGKILL)
        assert server.has_ended
        url = server.start()

        assert not server.has_ended
        assert "is still in use" in (tmp_path / "postgres.log").read_text(encoding="utf-8")
        with psycopg.connect(url) as connection:
            assert connection.execute("select 1").fetchone() == (1,)
        with pytest.raises(psycopg.OperationalError):
            work.result()


def run_busy_query(url: str) -> None:
    """Keeps a backend busy for a second, without a wait in which it notices the kill."""
    with psycopg.connect(url, options="-c statement_timeout=1s") as connection:
        connection.execute("select sum(n) from generate_series(1, 1000000000) n")


def wait_for_busy_query(url: str) -> None:
    """Returns once the backend runs the query."""
    running = "select pid from pg_stat_activity where query ~ 'generate_series' and pid <> %s"
    with psycopg.connect(url, autocommit=True) as connection:
        while connection.execute(running, (connection.info.backend_pid,)).fetchone() is None:
            time.sleep(0.01)


@contextmanager
def closing_server(server: PostgresServer) -> Generator[None]:
    """Stops the server after the block."""
    try:
        yield
    finally:
        server.stop()


def command_lines_of_all_processes() -> list[bytes]:
    """What every user of the machine can read."""
    found: list[bytes] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # the process has ended
            found.append(path.read_bytes())
    return found


def test_other_users_of_the_machine_cannot_log_in_to_postgres(tmp_path: Path) -> None:
    with postgres(tmp_path, durable=False) as url:
        parts = urlsplit(url)
        file = tmp_path / servers.PASSWORD_FILE
        for user in ("postgres", "shop_ops", "shop_relay"):
            for password in ("", ":", ":postgres@", ":wrong@"):
                other = f"postgresql://{user}{password.rstrip('@')}@127.0.0.1:{parts.port}/shop"
                with pytest.raises(psycopg.OperationalError, match="password"):
                    psycopg.connect(other, connect_timeout=5).close()
        with psycopg.connect(url_of_role(url, "shop_ops")) as connection:
            assert connection.execute("select current_user").fetchone() == ("shop_ops",)
        command_lines = command_lines_of_all_processes()

    assert file.stat().st_mode & 0o777 == 0o600
    assert parts.password == file.read_text()
    assert not any((parts.password or "").encode() in line for line in command_lines)


def test_cluster_of_an_earlier_version_asks_for_a_password_after_its_next_start(
    tmp_path: Path,
) -> None:
    with postgres(tmp_path, durable=False) as url, psycopg.connect(url) as connection:
        connection.execute("create table kept ()")
    server = PostgresServer(tmp_path, durable=False)
    (tmp_path / servers.PASSWORD_FILE).unlink()
    (server.cluster / "pg_hba.conf").write_text("host all all 127.0.0.1/32 trust\n")

    with postgres(tmp_path, durable=False) as again, psycopg.connect(again) as connection:
        assert connection.execute("select * from kept").fetchall() == []
        parts = urlsplit(again)
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(f"postgresql://postgres@127.0.0.1:{parts.port}/shop").close()

    assert again != url


def test_korean_text_has_trigrams(tmp_path: Path) -> None:
    with postgres(tmp_path, durable=False) as url, psycopg.connect(url) as connection:
        connection.execute("create extension pg_trgm")
        row = connection.execute("select cardinality(show_trgm('테스트'))").fetchone()

    assert row == (4,)


@pytest.fixture
def closed_folder() -> Generator[Path]:
    """A folder that only its owner can enter."""
    folder = Path(mkdtemp())
    assert folder.stat().st_mode & 0o777 == 0o700
    yield folder
    rmtree(folder)


def test_data_folder_may_be_accessible_to_its_owner_only(closed_folder: Path) -> None:
    for expected in ([], [("kept",)]):
        with postgres(closed_folder / "data") as url, psycopg.connect(url) as connection:
            rows = connection.execute("select tablename from pg_tables where schemaname = 'public'")
            assert rows.fetchall() == expected
            connection.execute("create table if not exists kept ()")
    location = closed_folder / "data" / "postgres.location"
    cluster = closed_folder / "data" / "postgres"
    if os.geteuid() == 0:  # root runs its servers as the user nobody, which cannot enter it
        cluster = Path(location.read_text(encoding="utf-8").splitlines()[0])
    assert location.exists() == (os.geteuid() == 0)
    assert (cluster / "PG_VERSION").exists()

    rmtree(closed_folder / "data")
    servers.remove_orphaned_clusters()

    assert not cluster.exists()


def test_new_cluster_is_not_removed_by_a_process_that_starts_meanwhile(
    closed_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process looks for orphaned clusters before and after each file is written."""
    write = servers._write_whole

    def write_between_removals(path: Path, text: str) -> None:
        servers.remove_orphaned_clusters()
        write(path, text)
        servers.remove_orphaned_clusters()

    monkeypatch.setattr(servers, "CLUSTERS", tmp_path / "clusters")
    monkeypatch.setattr(servers, "_write_whole", write_between_removals)

    cluster = servers._cluster_folder(closed_folder, servers.Account(os.getuid(), os.getgid()))
    servers.remove_orphaned_clusters()

    assert cluster.parent.is_dir()


def test_redis_answers_who_has_its_password_and_stops_after_the_block() -> None:
    with redis() as url:
        parts = urlsplit(url)
        with socket.create_connection((parts.hostname or "", parts.port or 0)) as connection:
            connection.sendall(f"AUTH {parts.password}\r\n".encode())
            assert connection.recv(64) == b"+OK\r\n"
            connection.sendall(b"PING\r\n")
            assert connection.recv(64) == b"+PONG\r\n"

    assert refuses_connections(url)


def test_other_users_of_the_machine_cannot_read_redis_or_its_password() -> None:
    with redis() as url:
        parts = urlsplit(url)
        with socket.create_connection((parts.hostname or "", parts.port or 0)) as connection:
            for command, reply in (("PING", b"-NOAUTH"), ("AUTH wrong", b"-WRONGPASS")):
                connection.sendall(f"{command}\r\n".encode())
                assert connection.recv(128).startswith(reply)
        command_lines = command_lines_of_all_processes()

    assert len(parts.password or "") >= 32
    assert not any((parts.password or "").encode() in line for line in command_lines)


def test_restarted_redis_keeps_its_address_and_password() -> None:
    server = servers.RedisServer()
    try:
        first = server.start()
        server.stop(signal.SIGKILL)
        assert server.start() == first
    finally:
        server.stop()


def test_servers_exit_with_the_process_that_started_them(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from tools.local_platform.servers import postgres, redis\n"
        "with postgres(Path(sys.argv[1])) as url, redis() as cache:\n"
        "    print(url, cache, flush=True); sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    urls = process.stdout.readline().split()
    assert [refuses_connections(url) for url in urls] == [False, False]

    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)

    deadline = time.monotonic() + 20
    while not all(refuses_connections(url) for url in urls):
        assert time.monotonic() < deadline


def test_free_port_returns_no_port_twice() -> None:
    """With SO_REUSEPORT, two servers given the same port would both listen on it."""
    ports = [servers.free_port() for _ in range(2_000)]

    assert len(set(ports)) == len(ports)
    assert set(ports) <= set(servers.PORTS)


def test_free_port_skips_a_port_in_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", servers.free_port()), reuse_port=True) as taken:
        monkeypatch.setattr(servers, "_NEXT_PORTS", iter([taken.getsockname()[1], 31_999]))

        assert servers.free_port() == 31_999
