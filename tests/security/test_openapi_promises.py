"""Schemathesis holds the running shop to the OpenAPI document that it serves itself.

Every operation, with data that fits the document and data that does not: no 5xx, no status, type or
body that the document does not promise, no route that a token is not asked for, no bad data taken.
"""

# schemathesis does not type the argument of its generic Case.
# pyright: reportUnknownVariableType=false

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.engine import from_schema
from schemathesis.engine.events import EngineFinished, FatalError, NonFatalError
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    missing_required_header,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from shop.runtime.wsgi import wsgi
from tests.harness import MakeShop, ShopHarness, shop_of_module
from tests.openapi_document import operation_at
from tests.sample_requests import ROUTES, Samples, sample_request

EXAMPLES = 12
SEQUENCES, RUNS_MAX = 300, 200
# CI sends 5,000, which takes some minutes
REQUESTS_MIN = int(os.environ.get("OPENAPI_REQUESTS", "200"))
CHECKS: list[Any] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    missing_required_header,
    ignored_auth,
    unsupported_method,
]
# the others send further requests for each request
CHECKS_OF_SEQUENCES = [
    check.__name__ for check in CHECKS if check not in (ignored_auth, missing_required_header)
]
MODES = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
Environ = dict[str, Any]


@pytest.fixture(scope="module")
def samples(request: pytest.FixtureRequest) -> Iterator[Samples]:
    with shop_of_module(request) as shop:
        yield Samples(shop)


@pytest.fixture(scope="module")
def document(samples: Samples) -> Any:
    """The document as the shop serves it, bound to the shop that serves it."""
    schema = schemathesis.openapi.from_wsgi("/v3/api-docs", edge_of(samples.shop))
    refused = schema.config.checks.negative_data_rejection
    refused.expected_statuses = [*refused.expected_statuses, "412", "413", "414", "431"]
    return schema


def edge_of(shop: ShopHarness) -> Callable[..., Iterable[bytes]]:
    """All functions behind one WSGI callable, each with its own role, as the edge routes them."""
    applications = {id(app): wsgi(app) for app in shop.apps.values()}

    def edge(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        app = route(shop, environ["REQUEST_METHOD"], environ["PATH_INFO"])
        return applications[id(app)](environ, start_response)

    return edge


def route(shop: ShopHarness, method: str, path: str) -> Any:
    wanted = "GET" if method == "HEAD" else method
    for_path = [
        (app, operation)
        for app in shop.apps.values()
        for operation in app.router.operations
        if operation.pattern.fullmatch(path)
    ]
    literal = [(a, o) for a, o in for_path if "{" not in o.route.path] or for_path
    for app, operation in literal:
        if operation.route.method == wanted:
            return app
    return literal[0][0] if literal else shop.apps["api_docs"]


def signed_in(samples: Samples, statuses: list[int]) -> Callable[..., Iterable[bytes]]:
    """The edge for callers who may use every route; collects the statuses of their requests.

    A caller whose session was ended by a request of the sequence logs in again.
    """
    edge = edge_of(samples.shop)

    def application(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        operation = operation_at(environ["REQUEST_METHOD"], environ["PATH_INFO"])
        person = samples.person_for(operation.route) if operation else None
        if person is not None:
            environ["HTTP_AUTHORIZATION"] = f"Bearer {person.token}"
        environ.pop("HTTP_PREFER", None)  # would wait for up to twenty seconds

        def start(status: str, *rest: Any) -> Any:
            statuses.append(int(status.split()[0]))
            if person is not None and statuses[-1] == HTTPStatus.UNAUTHORIZED:
                person.token = samples.new_token(person)
            return start_response(status, *rest)

        return edge(environ, start)

    return application


@pytest.mark.timeout(1800)
def test_sequences_of_requests_match_the_openapi_document(make_shop: MakeShop) -> None:
    """Signed-in callers create resources and follow the document's links from their responses."""
    statuses: list[int] = []
    # a shop of its own: a request may close any account that another one has listed
    edge = signed_in(Samples(make_shop()), statuses)
    schema = schemathesis.openapi.from_wsgi("/v3/api-docs", edge)
    schema.config.phases.update(phases=["stateful"])
    schema.config.generation.update(max_examples=SEQUENCES, no_shrink=True, database="none")
    schema.config.checks.update(included_check_names=CHECKS_OF_SEQUENCES)
    refused = schema.config.checks.negative_data_rejection
    refused.expected_statuses = [*refused.expected_statuses, "412", "413", "414", "431"]

    # a run ends where Hypothesis notices that the shop is not in the state of the run before
    for seed in range(RUNS_MAX):
        schema.config.seed = seed
        events = list(from_schema(schema).execute())
        assert [event for event in events if isinstance(event, NonFatalError | FatalError)] == []
        (end,) = (event for event in events if isinstance(event, EngineFinished))
        assert [f"{failure.operation}: {failure}" for failure in end.failures] == [], seed
        if len(statuses) >= REQUESTS_MIN:
            break

    assert len(statuses) >= REQUESTS_MIN
    assert sum(status < 300 for status in statuses) >= REQUESTS_MIN / 10, Counter(statuses)


@pytest.mark.parametrize(("method", "path"), ROUTES, ids=lambda v: v)
def test_valid_request_gets_a_body_exactly_if_the_document_has_one(
    samples: Samples, document: Any, method: str, path: str
) -> None:
    route = ROUTES[method, path]
    person = samples.person_for(route)
    if person is not None:  # another test may have ended the session
        person.token = samples.new_token(person)

    answer = samples.send(
        route, sample_request(samples, route), token=person.token if person else None
    )

    promised = document.raw_schema["paths"][path][method.lower()]["responses"][str(route.status)]
    if answer.status == route.status:
        assert bool(answer.body) is ("content" in promised)
    else:  # unsigned of a provider, with a token that must exist, or while a payment is under way
        assert answer.status in (401, 403, 409), answer.body


@pytest.mark.parametrize(("method", "path"), ROUTES, ids=lambda v: v)
def test_responses_match_the_openapi_document(
    samples: Samples, document: Any, method: str, path: str
) -> None:
    operation = document[path][method]
    person = samples.person_for(ROUTES[method, path])
    seen: list[int] = []

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.filter_too_much,
            HealthCheck.data_too_large,
            HealthCheck.large_base_example,
        ],
    )
    @given(data=st.data(), mode=st.sampled_from(MODES))
    def holds(data: st.DataObject, mode: schemathesis.GenerationMode) -> None:
        case = data.draw(operation.as_strategy(generation_mode=mode))
        case.headers.pop("Prefer", None)  # would wait for up to twenty seconds
        headers = {"Authorization": f"Bearer {person.token}"} if person else {}
        response = case.call_and_validate(headers=headers, checks=CHECKS)
        seen.append(response.status_code)

    holds()

    assert len(seen) >= 1
