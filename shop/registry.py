"""The specs of all functions, found as ``functions/*/spec.py``.

Reading them imports no driver and no handler.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import Path

import functions
from shop.primitives.spec import FunctionSpec


@cache
def all_specs() -> tuple[FunctionSpec, ...]:
    """Every function's spec, by name; ValueError when two functions have the same route."""
    root = Path(next(iter(functions.__path__)))
    names = sorted(path.parent.name for path in root.glob("*/spec.py"))
    specs = tuple(spec_of(name) for name in names)
    _check_unique_routes(specs)
    return specs


def spec_of(name: str) -> FunctionSpec:
    """The spec of one function; raises LookupError when there is no such function."""
    try:
        module = import_module(f"functions.{name}.spec")
    except ModuleNotFoundError as error:
        raise LookupError(f"there is no function {name!r} in functions/") from error
    spec: FunctionSpec = module.SPEC
    if spec.name != name:
        raise ValueError(f"functions/{name}/spec.py names {spec.name!r}")
    return spec


def consumers_of(event: str) -> tuple[str, ...]:
    """Names of the functions that subscribe to a short event name."""
    return tuple(s.name for s in all_specs() if any(sub.event == event for sub in s.subscriptions))


def _check_unique_routes(specs: tuple[FunctionSpec, ...]) -> None:
    seen: dict[tuple[str, str], str] = {}
    for spec in specs:
        for route in spec.routes:
            key = (route.method, route.path)
            if key in seen:
                raise ValueError(
                    f"{route.method} {route.path} is a route of both {seen[key]} and {spec.name}"
                )
            seen[key] = spec.name
