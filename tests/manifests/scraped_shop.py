"""A shop on the local platform whose functions a real Prometheus scrapes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import yaml

from shop.primitives.spec import FunctionSpec
from tests.waiting import wait_until
from tools.bench.idle import IdleShop, idle_shop, place_order
from tools.cost.usage import Usage, from_document
from tools.local_platform.servers import free_port
from tools.prometheus_queries import fetch, values
from tools.render.dashboards import cold_starts_by_budget

SCRAPE_SECONDS = 1.0
IDLE_SECONDS = 10.0
# of each function, the path that keeps it busy
READS = {"list_products": "/products", "api_docs": "/v3/api-docs"}
# a process has no metrics until it has loaded them, which takes longest beside other load
TRAFFIC_SECONDS_MIN, TRAFFIC_BY_LOADING = 60.0, 60.0
READY_SECONDS = 60.0


@dataclass
class Targets:
    """Gives each process a port for its metrics, and tells Prometheus of it by a file."""

    file: Path
    ports: list[int] = field(default_factory=list[int])
    latest: dict[str, int] = field(default_factory=dict[str, int])

    def settings_of(self, spec: FunctionSpec) -> dict[str, str]:
        """The settings of a process that is about to start."""
        port = free_port()
        self.ports.append(port)
        self.latest[spec.name] = port
        unfinished = self.file.with_suffix(".tmp")
        addresses = [f"127.0.0.1:{each}" for each in self.ports]
        unfinished.write_text(json.dumps([{"targets": addresses}]), "utf-8")
        unfinished.rename(self.file)
        return {"METRICS_PORT": str(port), "RATE_LIMIT_PER_MINUTE": "0"}


@asynccontextmanager
async def prometheus(program: Path, folder: Path, targets: Path) -> AsyncGenerator[str]:
    """The URL of a Prometheus that scrapes the targets of a file."""
    job = {"job_name": "functions", "file_sd_configs": [{"files": [str(targets)]}]}
    interval = f"{round(SCRAPE_SECONDS * 1000)}ms"
    document = {
        "global": {"scrape_interval": interval, "scrape_timeout": interval},
        "scrape_configs": [job],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(document), "utf-8")
    address = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [
            str(program),
            f"--config.file={folder}/prometheus.yaml",
            f"--storage.tsdb.path={folder}/tsdb",
            f"--web.listen-address={address}",
            "--log.level=error",
        ]
    )
    try:
        async with httpx.AsyncClient() as client:
            await wait_until_ready(client, f"http://{address}/-/ready")
        yield f"http://{address}"
    finally:
        process.kill()
        process.wait()


async def wait_until_ready(client: httpx.AsyncClient, url: str) -> None:
    """Until a GET is answered with 200; TimeoutError after a minute."""
    async with asyncio.timeout(READY_SECONDS):
        while True:
            try:
                if (await client.get(url)).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)


async def send_traffic(shop: IdleShop, targets: Targets) -> None:
    """An order, and reads for a time; returns when every process has ended."""
    await place_order(shop)
    loop = asyncio.get_running_loop()
    async with httpx.AsyncClient(base_url=shop.url, timeout=90) as client:
        await read_all(client)
        answered_at = loop.time()
        for name in READS:
            await wait_until_ready(client, f"http://127.0.0.1:{targets.latest[name]}/metrics")
        loading = loop.time() - answered_at
        until = loop.time() + max(TRAFFIC_SECONDS_MIN, TRAFFIC_BY_LOADING * loading)
        while loop.time() < until:
            await read_all(client)
            await asyncio.sleep(0.5)
    starts = shop.activity_log.counts["starts"]
    await wait_until(lambda: shop.activity_log.ended_processes == starts, 60)


async def read_all(client: httpx.AsyncClient) -> None:
    """One read of each function that is to stay busy."""
    for path in READS.values():
        (await client.get(path)).raise_for_status()


@dataclass(frozen=True)
class Figures:
    """The platform's own record, what ``shop cost`` reads from Prometheus, and a panel."""

    own: Usage
    reported: Usage
    cold_starts_by_budget: dict[str, float]


async def figures(program: Path, folder: Path) -> Figures:
    """Runs a shop and a Prometheus, and reads both."""
    targets = Targets(folder / "targets.json")
    targets.file.write_text("[]", "utf-8")
    async with (
        prometheus(program, folder, targets.file) as url,
        idle_shop(folder / "shop", targets.settings_of, IDLE_SECONDS) as shop,
    ):
        await send_traffic(shop, targets)
        own = Usage(orders=1)
        for name, seconds in shop.activity_log.process_seconds.items():
            used = own.of(name)
            used.process_seconds = seconds
            used.requests = shop.platform.activator.pools[name].messages
        command = [sys.executable, "-m", "tools.cli", "cost", f"--prometheus={url}", "--json"]
        options = ["--hours=0.1", f"--scrape-seconds={SCRAPE_SECONDS}"]
        process = await asyncio.create_subprocess_exec(
            *command, *options, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
        panel = await asyncio.to_thread(fetch, url, cold_starts_by_budget())
        shares = {labels["function"]: value for labels, value in values(panel)}
        return Figures(own, from_document(json.loads(output)), shares)
