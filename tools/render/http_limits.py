"""Renders docs/reference/http-limits.md: the limits of every hop, and how they fit together."""

from __future__ import annotations

from pathlib import Path

from shop.primitives import http_limits as limits
from shop.primitives.spec import FunctionSpec
from shop.registry import all_specs
from tools.render.documents import MARK

FILE = Path("docs/reference/http-limits.md")

HEAD = f"""<!-- {MARK} -->

# HTTP limits

The time and connection limits of every hop between a client and a function. They are declared in
`shop/primitives/http_limits.py` and rendered into Envoy's configurations, the Gateway, the Knative
Services and this page; `tests/contract/test_http_limits.py` reads them back from the files.

A request that a hop cannot begin in time gets 503 with `Retry-After` and does not run. A hop that
gives up closes its connection to the next one, which drops the request if it has not begun. A
request that has begun completes: 502 and 504 mean that its result is unknown, and repeating it with
the same `Idempotency-Key` returns that result.

| hop | limit | value | fits because |
|---|---|---|---|
"""


def render() -> dict[Path, str]:
    """The page."""
    rows = [*_edge_rows(), *_queue_proxy_rows(), *_server_rows()]
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    return {FILE: HEAD + table + _functions()}


def _edge_rows() -> list[tuple[str, ...]]:
    edge = "edge (Envoy, Envoy Gateway)"
    return [
        (edge, "headers of a request", f"{limits.EDGE_HEAD_SECONDS} s", "Envoy only"),
        (edge, "whole request", f"{limits.EDGE_REQUEST_SECONDS} s", "it is buffered, then sent on"),
        (edge, "idle client connection", f"{limits.EDGE_CLIENT_IDLE_SECONDS} s", ""),
        (
            edge,
            "silence within a request",
            f"{limits.EDGE_STREAM_IDLE_SECONDS} s",
            "longer than the wait for any response",
        ),
        (
            edge,
            "idle connection to a function",
            f"{limits.EDGE_FUNCTION_IDLE_SECONDS} s",
            "the server keeps it longer",
        ),
        (edge, "client connections", f"{limits.EDGE_CONNECTIONS_MAX:,}", ""),
        (
            edge,
            "response of a function",
            f"its limit + {limits.COLD_START_SECONDS} s",
            "a process may have to start",
        ),
        (edge, "concurrent requests of a function", "see below", "more would only wait"),
    ]


def _queue_proxy_rows() -> list[tuple[str, ...]]:
    hop = "queue-proxy"
    return [
        (
            hop,
            "first byte of a response",
            f"at least {limits.REQUEST_SECONDS_MIN} s",
            "longer than the wait for a thread",
        ),
        (
            hop,
            "concurrent requests",
            "`containerConcurrency`",
            f"Knative queues {limits.QUEUED_PER_THREAD} times as many, then 503",
        ),
        (
            hop,
            "idle connection to the server",
            f"{limits.QUEUE_PROXY_IDLE_SECONDS} s",
            "the server keeps it longer",
        ),
    ]


def _server_rows() -> list[tuple[str, ...]]:
    hop = "server of a function"
    return [
        (hop, "head of a request", f"{limits.READ_SECONDS} s", "then 408"),
        (hop, "body of a request", f"{limits.READ_SECONDS} s", "then 408"),
        (
            hop,
            "requests that wait",
            f"{limits.QUEUED_PER_THREAD} for each thread",
            "further ones get 503",
        ),
        (
            hop,
            "wait for a thread",
            f"{limits.QUEUE_SECONDS} s, or `x-envoy-expected-rq-timeout-ms`",
            "then 503; the hop in front waits longer",
        ),
        (
            hop,
            "connections",
            f"{limits.CONNECTIONS_MAX}",
            "beyond them idle ones and the slowest are closed",
        ),
        (
            hop,
            "idle connection",
            f"{limits.SERVER_IDLE_SECONDS} s",
            "longer than every hop in front",
        ),
        (hop, "after SIGTERM", f"{limits.DRAIN_SECONDS} s", "Knative sends it after draining"),
    ]


def _functions() -> str:
    head = (
        "\n## Functions\n\n"
        "The edge waits for a function's response for the time in the second column. It sends as\n"
        "many requests at once as run and wait in one process (Compose), or in all processes that\n"
        "it may have (cluster).\n\n"
        "| function | seconds | requests at once, one process | in a cluster |\n|---|---|---|---|\n"
    )
    return head + "".join(_function_row(spec) for spec in all_specs() if spec.routes)


def _function_row(spec: FunctionSpec) -> str:
    one = limits.requests_max(spec, processes=1)
    many = limits.requests_max(spec, processes=spec.scale.max_scale)
    return f"| `{spec.name}` | {limits.edge_seconds(spec)} | {one} | {many} |\n"
