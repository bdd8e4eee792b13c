"""tools.warm_hours: keeps pods ready in the hours that the chart names."""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
from collections.abc import Generator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tools import kubernetes_api, warm_hours
from tools.kubernetes_api import SERVING
from tools.rollout.cluster import Cluster
from tools.warm_hours import Window, min_scale_at

OFFICE = {"start": "0 9 * * 1-5", "end": "0 18 * * 1-5", "timeZone": "Asia/Seoul", "minScale": 2}
NIGHT = {"start": "0 22 * * *", "end": "0 2 * * *", "timeZone": "Asia/Seoul", "minScale": 1}
TRAFFIC = [
    {"revisionName": "shop-login-00002", "percent": 90},
    {"revisionName": "shop-login-00003", "percent": 10},
    {"revisionName": "shop-login-00001", "tag": "old"},
]


@pytest.mark.parametrize(
    ("moment", "scale"),
    [
        # Monday in Seoul, nine hours ahead
        (datetime(2026, 3, 2, 0, 0, 5, tzinfo=UTC), 2),
        (datetime(2026, 3, 2, 8, 59, 59, tzinfo=UTC), 2),
        (datetime(2026, 3, 2, 9, 0, 5, tzinfo=UTC), 0),
        (datetime(2026, 3, 2, 13, 30, tzinfo=UTC), 1),
        (datetime(2026, 3, 2, 16, 59, tzinfo=UTC), 1),
        (datetime(2026, 3, 2, 17, 0, 1, tzinfo=UTC), 0),
        # Saturday
        (datetime(2026, 3, 7, 3, 0, tzinfo=UTC), 0),
    ],
)
def test_scale_is_that_of_the_open_window(moment: datetime, scale: int) -> None:
    windows = [Window.parse(OFFICE), Window.parse(NIGHT)]

    assert min_scale_at(windows, moment) == scale


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[list[Any]]:
    """An API server with one Service; the patches that it gets."""
    patches: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path.endswith("/namespaces/shop/services/shop-login")
            self._respond(200 if found else 404, {"status": {"traffic": TRAFFIC}})

        def do_PATCH(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            patches.append((self.path.rpartition("/")[2], json.loads(body)))
            patches.append(self.headers["Authorization"])
            self._respond(200, {})

        def _respond(self, status: int, body: dict[str, Any]) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Logs nothing."""

    _make_certificate(tmp_path)
    (tmp_path / "token").write_text("t0ken\n")
    monkeypatch.setattr(kubernetes_api, "ACCOUNT", tmp_path)
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "ca.crt", tmp_path / "key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.server_port))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield patches
        server.shutdown()


def _make_certificate(folder: Path) -> None:
    options = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=api"
    files = ["-keyout", str(folder / "key"), "-out", str(folder / "ca.crt")]
    extension = ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(
        ["openssl", *options.split(), *files, *extension], check=True, capture_output=True
    )


def test_revisions_with_traffic_get_the_scale_of_the_hour(
    api: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(warm_hours, "utc_now", lambda: datetime(2026, 3, 2, 3, 0, tzinfo=UTC))

    status = warm_hours.main(["shop", json.dumps({"shop-login": [OFFICE]})])

    change = {"metadata": {"annotations": {"autoscaling.knative.dev/min-scale": "2"}}}
    assert status == 0
    assert api == [
        ("shop-login-00002", change),
        "Bearer t0ken",
        ("shop-login-00003", change),
        "Bearer t0ken",
    ]
    assert "shop-login: min-scale 2" in capsys.readouterr().out


def test_missing_service_exits_with_one_and_changes_nothing(
    api: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    status = warm_hours.main(["shop", json.dumps({"shop-other": [OFFICE]})])

    assert (status, api) == (1, [])
    assert "404" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [[], ["shop"], ["shop", "no JSON"], ["shop", json.dumps({"f": [{**OFFICE, "start": "9:00"}]})]],
)
def test_invalid_arguments_exit_with_two(arguments: list[str]) -> None:
    assert warm_hours.main(arguments) == 2


def test_cluster_is_read_with_the_account_of_the_pod_where_there_is_no_kubectl(
    api: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    cluster = Cluster("shop")

    assert cluster.get_raw(f"{SERVING}/shop/services/shop-login")["status"]["traffic"] == TRAFFIC
    with pytest.raises(OSError, match="404"):
        cluster.get_raw(f"{SERVING}/shop/services")
    assert api == []


def test_cluster_cannot_be_read_outside_of_a_pod_without_kubectl(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)

    with pytest.raises(OSError, match="kubectl is not installed"):
        Cluster("shop").get_raw(f"{SERVING}/shop/services")
