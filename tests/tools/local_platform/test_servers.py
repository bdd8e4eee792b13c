"""The embedded servers keep their data, take their words and go when they should."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from urllib.parse import urlsplit

import psycopg
import pytest

from tools.local_platform import servers
from tools.local_platform.servers import PostgresServer, postgres, redis

ROOT = Path(__file__).parents[3]


def refuses_connections(url: str) -> bool:
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 0), timeout=1).close()
    except ConnectionRefusedError:
        return True
    except OSError:  # it is just going
        return False
    return False


def test_postgres_keeps_its_data_and_stops_with_the_block(tmp_path: Path) -> None:
    with postgres(tmp_path) as url, psycopg.connect(url) as connection:
        connection.execute("create table kept (word text)")
        connection.execute("insert into kept values ('테스트')")
    assert refuses_connections(url)

    with postgres(tmp_path) as url, psycopg.connect(url) as connection:
        assert connection.execute("select word from kept").fetchone() == ("테스트",)
        assert connection.execute("show fsync").fetchone() == ("on",)
        assert connection.execute("show unix_socket_directories").fetchone() == ("",)


def test_it_starts_again_though_a_killed_ones_backend_still_works(tmp_path: Path) -> None:
    """Until that backend is done, PostgreSQL refuses the cluster: its shared memory is in use."""
    server = PostgresServer(tmp_path, durable=False)
    with ThreadPoolExecutor(1) as somebody, closing_server(server):
        work = somebody.submit(work_without_looking_up, server.start())
        work_is_under_way(server)

        server.stop(signal.SIGKILL)
        assert server.has_ended
        url = server.start()

        assert not server.has_ended
        assert "is still in use" in (tmp_path / "postgres.log").read_text(encoding="utf-8")
        with psycopg.connect(url) as connection:
            assert connection.execute("select 1").fetchone() == (1,)
        with pytest.raises(psycopg.OperationalError):
            work.result()


def work_without_looking_up(url: str) -> None:
    """Two seconds of a backend that does not wait for anything, so hears of nothing."""
    with psycopg.connect(url, options="-c statement_timeout=2s") as connection:
        connection.execute("select sum(n) from generate_series(1, 1000000000) n")


def work_is_under_way(server: PostgresServer) -> None:
    """Returns once the backend works."""
    url = f"postgresql://postgres@127.0.0.1:{server.port}/shop"
    working = "select from pg_stat_activity where query ~ 'generate_series' and pid <> %s"
    with psycopg.connect(url, autocommit=True) as connection:
        while connection.execute(working, (connection.info.backend_pid,)).fetchone() is None:
            time.sleep(0.01)


@contextmanager
def closing_server(server: PostgresServer) -> Iterator[None]:
    """Stops it in the end."""
    try:
        yield
    finally:
        server.stop()


def test_korean_words_have_trigrams(tmp_path: Path) -> None:
    with postgres(tmp_path, durable=False) as url, psycopg.connect(url) as connection:
        connection.execute("create extension pg_trgm")
        row = connection.execute("select cardinality(show_trgm('테스트'))").fetchone()

    assert row == (4,)


@pytest.fixture
def closed_folder() -> Iterator[Path]:
    """A folder that only its owner may enter."""
    folder = Path(mkdtemp())
    assert folder.stat().st_mode & 0o777 == 0o700
    yield folder
    rmtree(folder)


def test_the_data_may_be_kept_where_only_its_owner_can_go(closed_folder: Path) -> None:
    for expected in ([], [("kept",)]):
        with postgres(closed_folder / "data") as url, psycopg.connect(url) as connection:
            rows = connection.execute("select tablename from pg_tables where schemaname = 'public'")
            assert rows.fetchall() == expected
            connection.execute("create table if not exists kept ()")
    location = closed_folder / "data" / "postgres.location"
    cluster = closed_folder / "data" / "postgres"
    if os.geteuid() == 0:  # root runs its servers as nobody, who cannot come here
        cluster = Path(location.read_text(encoding="utf-8").splitlines()[0])
    assert location.exists() == (os.geteuid() == 0)
    assert (cluster / "PG_VERSION").exists()

    rmtree(closed_folder / "data")
    servers._remove_orphans()

    assert not cluster.exists()


def test_redis_answers_and_stops_with_the_block() -> None:
    with redis() as url:
        parts = urlsplit(url)
        with socket.create_connection((parts.hostname or "", parts.port or 0)) as connection:
            connection.sendall(b"PING\r\n")
            assert connection.recv(64) == b"+PONG\r\n"

    assert refuses_connections(url)


def test_servers_die_with_the_process_that_started_them(tmp_path: Path) -> None:
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


def test_no_port_is_handed_out_twice() -> None:
    """Two servers that start at once must not be told the same: both would listen on it."""
    ports = [servers.free_port() for _ in range(2_000)]

    assert len(set(ports)) == len(ports)
    assert set(ports) <= set(servers.OUR_PORTS)


def test_a_port_that_somebody_listens_on_is_not_handed_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", servers.free_port()), reuse_port=True) as taken:
        monkeypatch.setattr(servers, "_PORTS", iter([taken.getsockname()[1], 31_999]))

        assert servers.free_port() == 31_999
