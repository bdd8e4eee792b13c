"""The rate limit: per client across processes, over a sliding minute, and without Redis too."""

# The size of the in-process counters is not visible over HTTP.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from uuid import uuid4

import pytest

from shop.adapters import counters
from shop.runtime import rate_limit
from tests.harness import MakeShop, Response, ShopHarness
from tests.sample_requests import Samples

GONE = "redis://127.0.0.1:9/0"


class Clock:
    """The clock of the rate limit, which the test sets."""

    def __init__(self, now: float) -> None:
        self.now = now

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Ten seconds into a past minute that no other test uses."""
    clock = Clock(float(uuid4().int % 10**9 // 60 * 60 + 10))
    monkeypatch.setattr(rate_limit, "time", clock)
    return clock


def address() -> str:
    return f"198.51.{uuid4().int % 250}.{uuid4().int % 250}"


def ask(shop: ShopHarness, client: str, path: str = "/categories") -> Response:
    return shop.call("GET", path, headers={"x-forwarded-for": client})


def test_request_over_the_limit_gets_429_with_retry_after(
    make_shop: MakeShop, clock: Clock
) -> None:
    shop, client = make_shop(rate_limit_per_minute=3), address()

    answers = [ask(shop, client) for _ in range(5)]

    assert [a.status for a in answers] == [200, 200, 200, 429, 429]
    assert [a.headers["ratelimit"] for a in answers[:4]] == [
        f'"default";r={left};t=50' for left in (2, 1, 0, 0)
    ]
    assert {a.headers["ratelimit-policy"] for a in answers} == {'"default";q=3;w=60'}
    assert answers[3].headers["retry-after"] == "66"  # 50 s, and a quarter of the next window
    assert answers[3].error == "RATE_LIMITED"
    assert ask(shop, address()).status == 200  # another client


def test_two_processes_share_the_count(make_shop: MakeShop, clock: Clock) -> None:
    one, two = make_shop(rate_limit_per_minute=4), make_shop(rate_limit_per_minute=4)
    client = address()

    answers = [ask(shop, client).status for _ in range(3) for shop in (one, two)]

    assert answers == [200] * 4 + [429] * 2


def test_account_is_counted_across_addresses(make_shop: MakeShop, clock: Clock) -> None:
    shop = make_shop(rate_limit_per_minute=3)
    person = shop.person()
    second_session = shop.token(person.user_id)

    answers = [
        shop.call(
            "GET",
            path,
            token=token,
            headers={"x-forwarded-for": address()},
        ).status
        for path in ("/users/me", "/cart", "/orders/me")
        for token in (person.token, second_session)
    ]

    assert answers == [200] * 3 + [429] * 3
    assert shop.person().get("/cart").status == 200


def test_rejected_requests_are_counted(make_shop: MakeShop, clock: Clock) -> None:
    shop, client = make_shop(rate_limit_per_minute=4), {"x-forwarded-for": address()}

    answers = [shop.call("GET", "/cart", token="x", headers=client).status for _ in range(2)]
    answers += [shop.call("POST", "/users", raw=b"{", headers=client).status for _ in range(2)]
    answers += [shop.call("GET", "/cart", token="x", headers=client).status]

    assert answers == [401, 401, 400, 400, 429]


def test_only_the_address_from_the_trusted_hop_is_used(make_shop: MakeShop, clock: Clock) -> None:
    shop, client = make_shop(rate_limit_per_minute=3), address()

    answers = [ask(shop, f"{address()}, {client}").status for _ in range(5)]
    answers += [ask(shop, f" {client} ").status]

    assert answers == [200] * 3 + [429] * 3


def test_two_trusted_hops_use_the_second_last_address(make_shop: MakeShop, clock: Clock) -> None:
    shop, client = make_shop(rate_limit_per_minute=3, trusted_hops=2), address()

    answers = [ask(shop, f"{address()}, {client}, 10.0.0.{i}").status for i in range(5)]

    assert answers == [200] * 3 + [429] * 2


def test_no_trusted_hop_uses_the_peer_address(make_shop: MakeShop, clock: Clock) -> None:
    shop = make_shop(rate_limit_per_minute=3, trusted_hops=0)

    answers = [ask(shop, address()).status for _ in range(5)]

    assert answers == [200] * 3 + [429] * 2


def test_ipv6_clients_are_counted_per_network(make_shop: MakeShop, clock: Clock) -> None:
    shop, network = make_shop(rate_limit_per_minute=3), f"2001:db8:{uuid4().int % 65_000:x}:7"

    answers = [ask(shop, f"{network}::{i:x}").status for i in range(1, 6)]

    assert answers == [200] * 3 + [429] * 2


@pytest.mark.parametrize("form", ["{}:{}", "[::ffff:{}]:{}", '"[::ffff:{}]:{}"'])
def test_client_is_counted_once_whatever_port_its_proxy_writes(
    make_shop: MakeShop, clock: Clock, form: str
) -> None:
    header = "forwarded" if form.startswith('"') else "x-forwarded-for"
    prefix = "proto=https;For=" if header == "forwarded" else ""
    shop, client = make_shop(rate_limit_per_minute=3, forwarded_header=header), address()

    answers = [
        shop.call("GET", "/categories", headers={header: prefix + form.format(client, port)}).status
        for port in range(40_001, 40_006)
    ]

    assert answers == [200] * 3 + [429] * 2


def test_clients_with_unreadable_addresses_share_one_limit(
    make_shop: MakeShop, clock: Clock
) -> None:
    shop = make_shop(rate_limit_per_minute=3)

    answers = [ask(shop, f"_hidden{i}").status for i in range(5)]

    assert answers == [200] * 3 + [429] * 2


def test_header_that_the_proxies_do_not_write_is_ignored(make_shop: MakeShop, clock: Clock) -> None:
    shop, client = make_shop(rate_limit_per_minute=3), address()

    answers = [
        shop.call(
            "GET",
            "/categories",
            headers={"x-forwarded-for": client, "forwarded": f"for={address()}"},
        ).status
        for _ in range(5)
    ]

    assert answers == [200] * 3 + [429] * 2


@pytest.mark.parametrize("redis_is", ["there", "gone"])
def test_window_slides(make_shop: MakeShop, clock: Clock, redis_is: str) -> None:
    """A fixed window would allow twice the limit around its edge."""
    settings = {"redis_url": _secret(GONE)} if redis_is == "gone" else {}
    shop, client = make_shop(rate_limit_per_minute=10, **settings), address()
    clock.now += 49  # the last second of the window
    first = [ask(shop, client).status for _ in range(10)]

    clock.now += 2  # the first of the next
    at_the_edge = [ask(shop, client).status for _ in range(2)]
    clock.now += 30
    half_a_minute_later = [ask(shop, client).status for _ in range(6)]

    assert first == [200] * 10
    assert at_the_edge == [200, 429]
    assert half_a_minute_later == [200] * 4 + [429] * 2


def _secret(text: str) -> object:
    from shop.runtime.config import Secret

    return Secret(text)


def test_requests_are_counted_per_process_without_redis(make_shop: MakeShop, clock: Clock) -> None:
    shop, client = make_shop(rate_limit_per_minute=3, redis_url=_secret(GONE)), address()

    answers = [ask(shop, client).status for _ in range(5)]

    assert answers == [200] * 3 + [429] * 2
    assert ask(shop, address()).status == 200


def test_local_counters_are_bounded(
    make_shop: MakeShop, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counters of past windows are dropped."""
    monkeypatch.setattr(counters, "LOCAL_COUNTERS_MAX", 50)
    shop, busy = make_shop(rate_limit_per_minute=100, redis_url=_secret(GONE)), address()

    for i in range(200):
        ask(shop, f"203.0.113.{i}")
        ask(shop, busy)

    assert len(shop.apps["list_products"].services.counters._local) <= 50
    assert ask(shop, busy).status == 429  # the busy one was not forgotten for it


def test_health_is_exempt_and_zero_disables_the_limit(make_shop: MakeShop, clock: Clock) -> None:
    limited, open_shop = make_shop(rate_limit_per_minute=1), make_shop(rate_limit_per_minute=0)
    client = address()

    for path in ("/health/liveness", "/health/readiness", "/_/health", "/_/ready"):
        answers = [ask(limited, client, path) for _ in range(5)]
        assert {a.status for a in answers} == {200}
        assert all("ratelimit" not in a.headers for a in answers)
    answers = [ask(open_shop, client) for _ in range(20)]
    assert {a.status for a in answers} == {200}
    assert "ratelimit" not in answers[0].headers


def test_events_are_not_counted(make_shop: MakeShop, clock: Clock) -> None:
    samples = Samples(make_shop(rate_limit_per_minute=30))
    for _ in range(5):
        samples.order()

    assert samples.shop.deliver_all() >= 5  # asserts 204 for each
    assert {samples.shop.tick("sweep").status for _ in range(40)} == {204}


def test_limit_is_shared_by_processes_and_keyed_by_the_trusted_hop(make_shop: MakeShop) -> None:
    """Processes share the limit, which is keyed by the address from the trusted hop."""
    one, two = make_shop(rate_limit_per_minute=4), make_shop(rate_limit_per_minute=4)
    client = f"198.51.{uuid4().int % 250}.{uuid4().int % 250}"
    answers: list[Response] = []
    for i in range(8):
        for shop in (one, two):
            headers = {"x-forwarded-for": f"10.0.0.{i}, {client}"}
            answers.append(shop.call("GET", "/categories", headers=headers))

    refused = [a for a in answers if a.status == 429]
    assert len(refused) >= 8
    assert all({"retry-after", "ratelimit", "ratelimit-policy"} <= set(a.headers) for a in refused)
