"""``shop dev``: runs the shop's functions, schema and payment simulator on the local platform."""

from __future__ import annotations

import compileall
import sys
from pathlib import Path

import functions
from shop.registry import all_specs
from tools.local_platform.activator import ScalingLimits
from tools.local_platform.broker import LocalBrokerClass
from tools.local_platform.delivery_faults import DeliveryFaults
from tools.local_platform.platform import PlatformConfig, run
from tools.local_platform.source_files import SourceFiles
from tools.migrate import migrate
from tools.showcase import seed_shop

CODE = ("events", "functions", "tools", "shop")


def run_local_platform(
    *,
    port: int,
    live_port: int | None,
    data: Path,
    idle_seconds: float,
    duplicate: float,
    reorder: float,
    lose: float,
    kill: float,
    seed: int,
    broker_class: LocalBrokerClass,
) -> int:
    """Runs the shop until it is interrupted; returns the exit code."""
    compile_code()
    config = PlatformConfig(
        specs=all_specs(),
        function_command=lambda function: [sys.executable, "-m", "shop.runtime", function],
        simulator_command=[sys.executable, "-m", "tools.payment_simulator"],
        mail_catcher_command=[sys.executable, "-m", "tools.mail_catcher"],
        migrate=migrate,
        seed=seed_shop,
        port=port,
        live_port=live_port,
        data=data,
        limits=ScalingLimits(idle_seconds=idle_seconds),
        faults=DeliveryFaults(
            duplicate=duplicate, reorder=reorder, lose=lose, kill=kill, seed=seed
        ),
        broker_class=broker_class,
        source=SourceFiles(_root()),
    )
    return run(config)


def compile_code() -> None:
    """Compiles the checkout's source, so that no function does so during a cold start.

    Without write permission nothing is compiled and cold starts are slower.
    """
    for package in CODE:
        compileall.compile_dir(str(_root() / package), quiet=2)


def _root() -> Path:
    return Path(next(iter(functions.__path__))).resolve().parent
