"""The workload process: ``python -m chaos.workload --url http://127.0.0.1:8080 --log FILE.sqlite``.

It creates its dataset, prints ``{"ready": true}`` and reads commands from standard input (see
``control.py``).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from chaos.controlled_process import JsonObject
from chaos.workload.control import Settings, WorkloadControl

LINE_BYTES_MAX = 1024 * 1024


def main(arguments: list[str] | None = None) -> None:
    """Runs until the command ``stop`` or the end of input."""
    asyncio.run(_run(_read_settings(arguments)))


async def _run(settings: Settings) -> None:
    control = WorkloadControl(settings, _print)
    await control.open()
    await control.execute_all(await _stdin())


async def _stdin() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=LINE_BYTES_MAX)
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    return reader


def _print(line: JsonObject) -> None:
    print(json.dumps(line, ensure_ascii=False), flush=True)


def _read_settings(arguments: list[str] | None) -> Settings:
    parser = argparse.ArgumentParser(prog="python -m chaos.workload", description=__doc__)
    parser.add_argument("--url", required=True, help="address of the shop")
    parser.add_argument("--log", required=True, type=Path, help="SQLite file of the clients' log")
    parser.add_argument("--seed", type=int, default=0, help="seed of the customers' choices")
    parser.add_argument("--orders", type=int, default=2000, help="orders to be accepted")
    parser.add_argument("--seconds", type=float, default=180.0, help="duration of the load")
    parser.add_argument("--accounts", type=int, default=120, help="customers to register")
    return Settings(**vars(parser.parse_args(arguments)))


if __name__ == "__main__":
    main()
