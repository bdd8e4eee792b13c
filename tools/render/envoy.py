"""Renders Envoy as the edge of a cluster, of Compose and of OpenFaaS (``infra/*/envoy.yaml``).

It is the edge where a cluster has no Gateway API, and the only entrance on OpenFaaS.  It routes the
paths of the specs only, and matches them byte for byte, so that no other spelling of a path reaches
a function.  It removes identity headers of clients, requires a token where a route needs one, and
limits request rate, body size and slow clients.  Functions do not rely on it: they check tokens,
roles, sizes and limits themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

from shop.primitives import api_key, cors
from shop.primitives.http_limits import (
    EDGE_CLIENT_IDLE_SECONDS,
    EDGE_CONNECTIONS_MAX,
    EDGE_FUNCTION_IDLE_SECONDS,
    EDGE_HEAD_SECONDS,
    EDGE_REQUEST_SECONDS,
    EDGE_STREAM_IDLE_SECONDS,
    EDGE_TIMEOUT,
    edge_seconds,
    requests_max,
)
from shop.primitives.spec import PERMITTED_ROLES, ROLES, FunctionSpec, Route
from shop.registry import all_specs
from tools.render.documents import yaml_text
from tools.render.objects import NAMESPACE, name_of
from tools.render.openfaas import grouped

CLUSTER_FILE = Path("infra/edge/envoy.yaml")
CLUSTER_TRACES_FILE = Path("infra/edge-traces/envoy.yaml")
COMPOSE_FILE = Path("infra/compose/envoy.yaml")
COMPOSE_TRACES_FILE = Path("infra/compose/traces/envoy.yaml")
OPENFAAS_FILE = Path("infra/openfaas/envoy.yaml")
OTLP_PORT = 4318
# the gateway of OpenFaaS's chart
OPENFAAS_GATEWAY = ("gateway.openfaas.svc.cluster.local", 8080)
PARAMETER = re.compile(r"\{[A-Za-z]+\}")
SEGMENT = r"[A-Za-z0-9_~-][A-Za-z0-9._~-]*"
LIVENESS = "/health/liveness"
PROBLEM = "application/problem+json"
METRICS = "/stats/prometheus"
BODY_BYTES_MAX = 64 * 1024
HEADERS_KIB_MAX = 16
EDGE_BURST, EDGE_PER_SECOND = 4000, 2000
ADDRESSES_MAX = 20_000
# each edge fetches the keys this often, also without requests, and the fetch wakes login
JWKS_CACHE_SECONDS = 24 * 3600
EXTENSIONS = "type.googleapis.com/envoy.extensions"

# Headers of clients that claim an identity, or another path than the request line.
CLAIMS = (
    "forwarded",
    "x-auth",
    "x-envoy-",
    "x-forwarded-access",
    "x-forwarded-client",
    "x-forwarded-email",
    "x-forwarded-group",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-pref",
    "x-forwarded-prefix",
    "x-forwarded-uri",
    "x-forwarded-user",
    "x-http-method",
    "x-method-override",
    "x-original-",
    "x-real-ip",
    "x-rewrite-",
    "x-role",
    "x-user",
)
# Responses of the edge itself: error code and message by status.
ERRORS = {
    400: ("BAD_REQUEST", "The request cannot be read"),
    401: ("UNAUTHENTICATED", "A valid access token is needed"),
    403: ("FORBIDDEN", "This is not allowed"),
    404: ("NOT_FOUND", "There is nothing at this path"),
    405: ("METHOD_NOT_ALLOWED", "This path has no such method"),
    408: ("REQUEST_TIMEOUT", "The request did not arrive in time"),
    413: ("TOO_LARGE", "The body is longer than 64 KiB"),
    429: ("RATE_LIMITED", "Too many requests; wait a little"),
    431: ("HEADERS_TOO_LARGE", "The headers are too long"),
    500: ("INTERNAL", "Something went wrong on our side"),
    502: ("BAD_GATEWAY", "The function did not answer"),
    503: ("UNAVAILABLE", "The shop cannot be reached; try again"),
    504: ("GATEWAY_TIMEOUT", "The function did not answer in time"),
}
WITH_RETRY_AFTER = (429, 503)
# Functions validate optional tokens; for settlements a setting decides whether one is required.
TOKEN_REQUIRED = (*ROLES, *PERMITTED_ROLES)
TOKEN_OPTIONAL = "settlements"  # noqa: S105 (the name of a policy)
CLIENT_ADDRESS = {
    "header": {"key": "x-forwarded-for", "value": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"},
    "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
}

# Envoy's filter for CORS has its origins in the configuration; this one reads the environment of
# the edge, where they are a setting.  Scripts of an origin may read the edge's own errors too.
CORS = f"""
local allowed = {{}}
for origin in string.gmatch(os.getenv("CORS_ORIGINS") or "", "[^,%s]+") do
  allowed[origin] = true
end
local is_on = next(allowed) ~= nil

function envoy_on_request(handle)
  if not is_on then return end
  local headers = handle:headers()
  local seen = handle:streamInfo():dynamicMetadata()
  seen:set("cors", "origin", headers:get("origin") or "")
  local is_preflight = headers:get(":method") == "OPTIONS"
    and headers:get("access-control-request-method") ~= nil
  seen:set("cors", "is_preflight", is_preflight)
end

function envoy_on_response(handle)
  if not is_on then return end
  local headers = handle:headers()
  headers:replace("vary", "Origin")
  local seen = handle:streamInfo():dynamicMetadata():get("cors")
  if seen == nil or not allowed[seen["origin"]] then return end
  headers:replace("access-control-allow-origin", seen["origin"])
  if seen["is_preflight"] then
    headers:replace("access-control-allow-methods", "{cors.METHODS}")
    headers:replace("access-control-allow-headers", "{cors.REQUEST_HEADERS}")
    headers:replace("access-control-max-age", "{cors.PREFLIGHT_SECONDS}")
  else
    headers:replace("access-control-expose-headers", "{cors.RESPONSE_HEADERS}")
  end
end
"""

# Starts a trace, or continues the client's, where no tracer does: a tracer of Envoy's must export.
START_TRACE = """
function envoy_on_request(handle)
  local headers = handle:headers()
  local trace = string.match(headers:get("traceparent") or "", "^00%-(%x+)%-%x+%-%x%x$")
  if trace == nil or #trace ~= 32 then
    trace = string.gsub(headers:get("x-request-id"), "%-", "")
    headers:replace("traceparent", "00-" .. trace .. "-" .. string.sub(trace, 1, 16) .. "-01")
  end
  handle:streamInfo():dynamicMetadata():set("trace", "id", trace)
end
"""

# Envoy compares the scheme of a token byte for byte; RFC 9110 (section 11.1) and functions do not.
BEARER_SCHEME = """
function envoy_on_request(handle)
  local headers = handle:headers()
  if headers:getNumValues("authorization") ~= 1 then return end
  local scheme, token = string.match(headers:get("authorization"), "^(%a+) (.*)$")
  if scheme ~= nil and string.lower(scheme) == "bearer" then
    headers:replace("authorization", "Bearer " .. token)
  end
end
"""

Config = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class EdgeSettings:
    """Ports and limits of an edge, and the addresses of functions and of the trace collector.

    The limit per client address is far above RATE_LIMIT_PER_MINUTE, which functions count over all
    replicas: it protects against floods only.
    """

    address_of: Callable[[FunctionSpec], tuple[str, int]]
    # None: the edge has no spans, since Envoy would log each export that fails
    collector: tuple[str, int] | None = None
    port: int = 8080
    metrics_port: int = 9095
    admin_port: int = 9901
    client_burst: int = 1200
    client_per_second: int = 400
    host: str = "0.0.0.0"  # noqa: S104 (the only address of a container)
    # what precedes the path of a request to a function
    path_of: Callable[[FunctionSpec], str] = lambda _: ""
    # True: replaces X-Forwarded-For, which proxies behind the edge pass on without an own address
    is_first_hop: bool = False
    # False: each function has one process, as in Compose
    scales: bool = True
    # health and metrics of the edge at the paths of the replaced system; for development only
    has_actuator: bool = False


def render() -> dict[Path, str]:
    """The configurations for a cluster, for Compose and for OpenFaaS.

    The first two have another one that exports spans to the collector of their platform.
    """
    cluster = EdgeSettings(
        address_of=lambda spec: (f"{name_of(spec)}.{NAMESPACE}.svc.cluster.local", 80),
    )
    compose = EdgeSettings(
        address_of=lambda spec: (spec.name.replace("_", "-"), 8080),
        scales=False,
        has_actuator=True,
    )
    collector = f"shop-collector.{NAMESPACE}.svc.cluster.local"
    edges = {
        CLUSTER_FILE: cluster,
        CLUSTER_TRACES_FILE: replace(cluster, collector=(collector, OTLP_PORT)),
        COMPOSE_FILE: compose,
        COMPOSE_TRACES_FILE: replace(compose, collector=("otel-collector", OTLP_PORT)),
        OPENFAAS_FILE: openfaas_edge(all_specs()),
    }
    return {path: yaml_text(bootstrap(all_specs(), edge)) for path, edge in edges.items()}


def openfaas_edge(specs: tuple[FunctionSpec, ...]) -> EdgeSettings:
    """The edge in front of OpenFaaS's gateway, which knows functions by path, not by host."""
    groups = {spec.name: group for group, members in grouped(specs).items() for spec in members}
    return EdgeSettings(
        address_of=lambda _: OPENFAAS_GATEWAY,
        path_of=lambda spec: f"/function/shop-{groups[spec.name]}",
        is_first_hop=True,
    )


def bootstrap(specs: tuple[FunctionSpec, ...], settings: EdgeSettings) -> Config:
    """Envoy's configuration for the routes of these functions; it does not route events."""
    routed = [spec for spec in specs if spec.routes]
    clusters = [
        {**_cluster(spec.name, settings.address_of(spec)), **_circuit_breaker(spec, settings)}
        for spec in routed
    ]
    if settings.collector:
        clusters.append(_cluster("collector", settings.collector))
    clusters.append(_cluster("admin", ("127.0.0.1", settings.admin_port)))
    listeners = [
        _listener(
            "edge", _address(settings.host, settings.port), _connection_manager(routed, settings)
        ),
        _listener("metrics", _address(settings.host, settings.metrics_port), _metrics()),
    ]
    return {
        "admin": {"address": _address("127.0.0.1", settings.admin_port)},
        "static_resources": {"listeners": listeners, "clusters": clusters},
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": _typed(
                        "resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                        max_active_downstream_connections=EDGE_CONNECTIONS_MAX,
                    ),
                }
            ]
        },
    }


def _typed(kind: str, **fields: Any) -> Config:
    return {"@type": f"{EXTENSIONS}.{kind}", **fields}


def _address(host: str, port: int) -> Config:
    return {"socket_address": {"address": host, "port_value": port}}


def _seconds(number: int) -> str:
    return f"{number}s"


# ---------------------------------------------------------------- upstream: functions


def _cluster(name: str, address: tuple[str, int]) -> Config:
    """The processes of one function, resolved by DNS name."""
    endpoint = {"endpoint": {"address": _address(*address)}}
    http: Config = {
        "explicit_http_config": {"http_protocol_options": {}},
        "common_http_protocol_options": {"idle_timeout": _seconds(EDGE_FUNCTION_IDLE_SECONDS)},
    }
    resolution = _typed(
        "clusters.dns.v3.DnsCluster",
        dns_lookup_family="V4_PREFERRED",
        dns_refresh_rate="5s",
        # a container that starts late is found within 2 s instead of 30 s
        dns_failure_refresh_rate={"base_interval": "0.5s", "max_interval": "2s"},
    )
    options = "upstreams.http.v3.HttpProtocolOptions"
    return {
        "name": name,
        "cluster_type": {"name": "envoy.cluster.dns", "typed_config": resolution},
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "typed_extension_protocol_options": {
            f"envoy.extensions.{options}": _typed(options, **http)
        },
    }


def _circuit_breaker(spec: FunctionSpec, settings: EdgeSettings) -> Config:
    """Rejects with 503 at once what would wait in front of the function's processes."""
    processes = spec.scale.max_scale if settings.scales else 1
    limit = requests_max(spec, processes=processes)
    limits = {"max_connections": limit, "max_pending_requests": limit, "max_requests": limit}
    return {"circuit_breakers": {"thresholds": [limits]}}


# ---------------------------------------------------------------- downstream: clients


def _listener(name: str, address: Config, manager: Config) -> Config:
    http = "envoy.filters.network.http_connection_manager"
    return {
        "name": name,
        "address": address,
        "per_connection_buffer_limit_bytes": 2 * BODY_BYTES_MAX,
        "filter_chains": [{"filters": [{"name": http, "typed_config": manager}]}],
    }


def _metrics() -> Config:
    """Exposes the metrics path of the admin port, and no other path of it."""
    route = {"match": {"path": METRICS}, "route": {"cluster": "admin"}}
    return _typed(
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="metrics",
        route_config={
            "name": "metrics",
            "virtual_hosts": [{"name": "metrics", "domains": ["*"], "routes": [route]}],
        },
        http_filters=[
            {
                "name": "envoy.filters.http.router",
                "typed_config": _typed("filters.http.router.v3.Router"),
            }
        ],
    )


def _connection_manager(specs: list[FunctionSpec], settings: EdgeSettings) -> Config:
    table = [*(_actuator() if settings.has_actuator else ()), *routes(specs, settings)]
    return _typed(
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="edge",
        # the peer's address is appended to X-Forwarded-For; no address counts as internal
        use_remote_address=True,
        **({"skip_xff_append": True} if settings.is_first_hop else {}),
        internal_address_config={"unix_sockets": False},
        server_header_transformation="PASS_THROUGH",
        # paths are forwarded unchanged; those with an escaped slash are rejected
        normalize_path=False,
        merge_slashes=False,
        path_with_escaped_slashes_action="REJECT_REQUEST",
        max_request_headers_kb=HEADERS_KIB_MAX,
        request_headers_timeout=_seconds(EDGE_HEAD_SECONDS),
        request_timeout=_seconds(EDGE_REQUEST_SECONDS),
        stream_idle_timeout=_seconds(EDGE_STREAM_IDLE_SECONDS),
        drain_timeout="5s",
        common_http_protocol_options={
            "idle_timeout": _seconds(EDGE_CLIENT_IDLE_SECONDS),
            # WSGI cannot distinguish x_user from x-user
            "headers_with_underscores_action": "DROP_HEADER",
            "max_headers_count": 100,
        },
        http2_protocol_options={
            "max_concurrent_streams": 100,
            "initial_stream_window_size": 65_536,
            "initial_connection_window_size": 1_048_576,
        },
        **({"tracing": _tracing()} if settings.collector else {}),
        access_log=[_access_log(settings)],
        local_reply_config=_local_replies(),
        route_config={
            "name": "shop",
            "virtual_hosts": [{"name": "shop", "domains": ["*"], "routes": table}],
            "response_headers_to_remove": ["server"],
        },
        http_filters=_filters(specs, settings),
    )


def _filters(specs: list[FunctionSpec], settings: EdgeSettings) -> list[Config]:
    filters = {
        "lua": _script(CORS),
        **({} if settings.collector else {"lua.trace": _script(START_TRACE)}),
        "lua.bearer": _script(BEARER_SCHEME),
        "header_mutation": _header_removal(),
        "local_ratelimit": _rate_limit(settings),
        "jwt_authn": _unless_api_key(_token_validation(specs, settings)),
        "buffer": _typed("filters.http.buffer.v3.Buffer", max_request_bytes=BODY_BYTES_MAX),
        "router": _typed("filters.http.router.v3.Router", suppress_envoy_headers=True),
    }
    return [
        {"name": f"envoy.filters.http.{name}", "typed_config": config}
        for name, config in filters.items()
    ]


def _script(text: str) -> Config:
    return _typed("filters.http.lua.v3.Lua", default_source_code={"inline_string": text})


def _header_removal() -> Config:
    matchers = [
        {"remove_on_match": {"key_matcher": {"prefix": prefix, "ignore_case": True}}}
        for prefix in CLAIMS
    ]
    return _typed(
        "filters.http.header_mutation.v3.HeaderMutation", mutations={"request_mutations": matchers}
    )


def _rate_limit(settings: EdgeSettings) -> Config:
    """Requests per second from one address and from all addresses, per edge process."""
    always = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    network = {"masked_remote_address": {"v4_prefix_mask_len": 32, "v6_prefix_mask_len": 64}}
    return _typed(
        "filters.http.local_ratelimit.v3.LocalRateLimit",
        stat_prefix="edge_rate_limit",
        filter_enabled=always,
        filter_enforced=always,
        token_bucket=_bucket(EDGE_BURST, EDGE_PER_SECOND),
        rate_limits=[{"actions": [network]}],
        # an entry without a value: each address gets its own token bucket
        descriptors=[
            {
                "entries": [{"key": "masked_remote_address"}],
                "token_bucket": _bucket(settings.client_burst, settings.client_per_second),
            }
        ],
        max_dynamic_descriptors=ADDRESSES_MAX,
    )


def _bucket(burst: int, per_second: int) -> Config:
    return {"max_tokens": burst, "tokens_per_fill": per_second, "fill_interval": "1s"}


def _token_validation(specs: list[FunctionSpec], settings: EdgeSettings) -> Config:
    """Validates token signatures with the keys of the function that issues tokens.

    Functions check issuer and audience, which are their settings, and the session.
    """
    (issuer,) = (spec for spec in specs if spec.issues_tokens)
    host, port = settings.address_of(issuer)
    provider = {
        "forward": True,
        "from_headers": [{"name": "authorization", "value_prefix": "Bearer "}],
        "remote_jwks": {
            "http_uri": {
                "uri": f"http://{host}:{port}{settings.path_of(issuer)}/.well-known/jwks.json",
                "cluster": issuer.name,
                "timeout": _seconds(issuer.timeout_seconds),
            },
            "cache_duration": _seconds(JWKS_CACHE_SECONDS),
            "async_fetch": {"fast_listener": True},
            "retry_policy": {"num_retries": 3},
        },
    }
    required: Config = {"provider_name": "shop"}
    optional: Config = {"requires_any": {"requirements": [required, {"allow_missing": {}}]}}
    return _typed(
        "filters.http.jwt_authn.v3.JwtAuthentication",
        providers={"shop": provider},
        requirement_map={"required": required, "optional": optional},
        strip_failure_response=True,
    )


def _unless_api_key(validation: Config) -> Config:
    """The validation, which leaves out an API key: only functions can find it and its scopes.

    Everything that does not have exactly the form of a key is validated, so also two headers.
    """
    header = _named(
        "request_headers",
        {
            "@type": "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput",
            "header_name": "authorization",
        },
    )
    skip = _named("skip", _typed("filters.common.matcher.action.v3.SkipFilter"))
    is_key: Config = {"safe_regex": {"google_re2": {}, "regex": f"Bearer {api_key.KEY}"}}
    matcher: Config = {
        "predicate": {"single_predicate": {"input": header, "value_match": is_key}},
        "on_match": {"action": skip},
    }
    return _typed(
        "common.matching.v3.ExtensionWithMatcher",
        extension_config=_named("envoy.filters.http.jwt_authn", validation),
        xds_matcher={"matcher_list": {"matchers": [matcher]}},
    )


def _named(name: str, config: Config) -> Config:
    return {"name": name, "typed_config": config}


# ---------------------------------------------------------------- routes


def routes(specs: list[FunctionSpec], settings: EdgeSettings) -> list[Config]:
    """The route table; an unknown path gets 404, an unknown method of a path 405."""
    by_path: dict[str, list[tuple[FunctionSpec, Route]]] = {}
    for spec in specs:
        for route in spec.routes:
            by_path.setdefault(route.path, []).append((spec, route))
    # a path without parameters takes precedence over one with
    table = [_health(LIVENESS)]
    for path in sorted(by_path, key=lambda path: ("{" in path, path)):
        table += [_route(spec, route, settings) for spec, route in by_path[path]]
        table += _other_methods(path, by_path[path])
    return [*table, {"match": {"prefix": "/"}, "direct_response": {"status": 404}}]


def _actuator() -> list[Config]:
    """Health and metrics of the edge at the paths that clients of the replaced system call."""
    read = [_method("GET", "HEAD")]
    metrics = {
        "match": {"path": "/actuator/prometheus", "headers": read},
        "route": {"cluster": "admin", "prefix_rewrite": METRICS},
    }
    return [_health("/actuator/health"), metrics]


def _health(path: str) -> Config:
    response = {"status": 200, "body": {"inline_string": '{"status":"UP"}'}}
    as_json = {"header": {"key": "content-type", "value": "application/json"}}
    return {
        "match": {"path": path, "headers": [_method("GET", "HEAD")]},
        "direct_response": response,
        "response_headers_to_add": [
            {**as_json, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"},
        ],
    }


def _route(spec: FunctionSpec, route: Route, settings: EdgeSettings) -> Config:
    methods = ("GET", "HEAD") if route.method == "GET" else (route.method,)
    jwt = "envoy.filters.http.jwt_authn"
    requirement = _requirement(route)
    per_route = _typed("filters.http.jwt_authn.v3.PerRouteConfig", **requirement)
    return {
        "name": route.handler,
        "match": {**_path(route.path), "headers": [_method(*methods)]},
        "route": {
            "cluster": spec.name,
            "auto_host_rewrite": True,
            **_rewrite(settings.path_of(spec)),
            "timeout": _seconds(edge_seconds(spec)),
            # retries only requests that cannot have reached the function
            "retry_policy": {"retry_on": "connect-failure,refused-stream", "num_retries": 2},
        },
        # the router's own header of this name comes with others that disclose Envoy to clients
        "request_headers_to_add": [
            _edge_timeout(spec),
            *([CLIENT_ADDRESS] if settings.is_first_hop else ()),
        ],
        "typed_per_filter_config": {jwt: per_route},
    }


def _rewrite(prefix: str) -> Config:
    """Puts a prefix before the path; nothing without one."""
    rewrite = {"pattern": {"regex": "^/"}, "substitution": f"{prefix}/"}
    return {"regex_rewrite": rewrite} if prefix else {}


def _edge_timeout(spec: FunctionSpec) -> Config:
    milliseconds = {"key": EDGE_TIMEOUT, "value": str(edge_seconds(spec) * 1000)}
    return {"header": milliseconds, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _requirement(route: Route) -> Config:
    if route.auth in TOKEN_REQUIRED:
        return {"requirement_name": "required"}
    return {"requirement_name": "optional"} if route.auth == TOKEN_OPTIONAL else {"disabled": True}


def allowed_methods(methods: Iterable[str]) -> str:
    """The value of Allow for a path whose routes have these methods."""
    allowed = {*methods, "OPTIONS"}
    return ", ".join(sorted(allowed | {"HEAD"} if "GET" in allowed else allowed))


def _other_methods(path: str, known: list[tuple[FunctionSpec, Route]]) -> list[Config]:
    allow = allowed_methods(route.method for _, route in known)
    header = {"header": {"key": "allow", "value": allow}}
    common: Config = {"response_headers_to_add": [header]}
    options = {**_path(path), "headers": [_method("OPTIONS")]}
    return [
        {"match": options, "direct_response": {"status": 204}, **common},
        {"match": _path(path), "direct_response": {"status": 405}, **common},
    ]


def _path(path: str) -> Config:
    if "{" not in path:
        return {"path": path}
    pattern = SEGMENT.join(re.escape(part) for part in PARAMETER.split(path))
    return {"safe_regex": {"regex": pattern.replace(r"\-", "-")}}


def _method(*methods: str) -> Config:
    match: Config = {"exact": methods[0]}
    if len(methods) > 1:
        match = {"safe_regex": {"regex": "|".join(methods)}}
    return {"name": ":method", "string_match": match}


# ---------------------------------------------------------------- responses, logs, traces


def _local_replies() -> Config:
    """Errors of the edge itself, as problem documents like those of functions, never cached."""
    return {"mappers": [_mapper(status) for status in ERRORS]}


def _mapper(status: int) -> Config:
    code, message = ERRORS[status]
    headers = [{"header": {"key": "cache-control", "value": "no-store"}}]
    if status == HTTPStatus.UNAUTHORIZED:
        headers.append({"header": {"key": "www-authenticate", "value": "Bearer"}})
    if status in WITH_RETRY_AFTER:
        headers.append({"header": {"key": "retry-after", "value": "1"}})
    comparison = {
        "op": "EQ",
        "value": {"default_value": status, "runtime_key": f"edge.is_{status}"},
    }
    return {
        "filter": {"status_code_filter": {"comparison": comparison}},
        "headers_to_add": headers,
        "body_format_override": _problem(code, message, HTTPStatus(status).phrase),
    }


def _problem(code: str, message: str, title: str) -> Config:
    members = problem_members(code, message, title)
    shown = {"status": "%RESPONSE_CODE%", "instance": "%PATH(NQ)%"}
    return {"content_type": PROBLEM, "json_format": {**members, **shown}}


def problem_members(code: str, message: str, title: str) -> Config:
    """A problem document (RFC 9457) without ``status`` and ``instance``."""
    return {
        "type": f"urn:msa-shop:problem:{code.lower().replace('_', '-')}",
        "title": title,
        "detail": message,
        "error": code,
        "message": message,
    }


def _access_log(settings: EdgeSettings) -> Config:
    """One line per request, without query, token and body."""
    line = {
        "at": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
        "message": "edge",
        "method": "%REQ(:METHOD)%",
        "path": "%PATH(NQ)%",
        "route": "%ROUTE_NAME%",
        "status": "%RESPONSE_CODE%",
        "why": "%RESPONSE_CODE_DETAILS%",
        "flags": "%RESPONSE_FLAGS%",
        "milliseconds": "%DURATION%",
        "function_milliseconds": "%RESPONSE_DURATION%",
        "received": "%BYTES_RECEIVED%",
        "sent": "%BYTES_SENT%",
        "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
        "trace": "%TRACE_ID%" if settings.collector else "%DYNAMIC_METADATA(trace:id)%",
    }
    return {
        "name": "envoy.access_loggers.stdout",
        "typed_config": _typed(
            "access_loggers.stream.v3.StdoutAccessLog", log_format={"json_format": line}
        ),
    }


def _tracing() -> Config:
    """Starts a trace, or continues the client's; functions and events continue it."""
    uri = {"uri": "http://collector/v1/traces", "cluster": "collector", "timeout": "1s"}
    return {
        "random_sampling": {"value": 100},
        "provider": {
            "name": "envoy.tracers.opentelemetry",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
                "service_name": "edge",
                "http_service": {"http_uri": uri},
            },
        },
    }
