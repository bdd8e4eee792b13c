"""Renders the route table of the edge: the function of each method and path."""

from __future__ import annotations

from pathlib import Path

from shop.registry import all_specs
from tools.render.documents import MARK, json_text

ROUTES = Path("infra/edge/routes.json")


def render() -> dict[Path, str]:
    """All public routes, sorted by path and method; the edge does not route events."""
    routes = [
        {
            "auth": route.auth,
            "function": spec.name,
            "method": route.method,
            "path": route.path,
            "timeoutSeconds": spec.timeout_seconds,
        }
        for spec in all_specs()
        for route in spec.routes
    ]
    routes.sort(key=lambda route: (route["path"], route["method"]))
    return {ROUTES: json_text({"comment": MARK, "routes": routes})}
