"""BROKER_TOKEN_PATH: the token that a function sends to a broker that asks for one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness import EventBroker, ShopHarness, event_name, order_body

MakeShop = Callable[..., ShopHarness]


@pytest.fixture
def broker() -> Iterator[EventBroker]:
    """A broker's ingress that accepts every event."""
    server = EventBroker()
    yield server
    server.close()


def place_order(shop: ShopHarness, product: int) -> None:
    """Places an order, which must succeed whatever the broker responds."""
    assert shop.person().post("/orders", order_body(product)).status == 201


def tokens_received(broker: EventBroker) -> list[str | None]:
    """The Authorization headers of the orders' events since the last call."""
    return [
        message[0].get("authorization")
        for message in broker.take()
        if event_name(message) == "order.placed"
    ]


def test_token_of_the_file_is_sent_and_a_rotated_one_with_the_next_event(
    make_shop: MakeShop, broker: EventBroker, tmp_path: Path
) -> None:
    """kubelet replaces the folder that the path leads to; the path stays the same."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "broker-token").write_text(f"{name}.token\n")
    current = tmp_path / "current"
    current.symlink_to("first")
    path = str(current / "broker-token")
    shop = make_shop(broker_url=broker.url, broker_token_path=path)
    product = shop.product()

    place_order(shop, product)
    before = tokens_received(broker)
    (tmp_path / "next").symlink_to("second")
    (tmp_path / "next").rename(current)
    place_order(shop, product)

    assert before == ["Bearer first.token"]
    assert tokens_received(broker) == ["Bearer second.token"]


def test_no_authorization_is_sent_without_the_setting(
    make_shop: MakeShop, broker: EventBroker
) -> None:
    shop = make_shop(broker_url=broker.url)

    place_order(shop, shop.product())

    assert tokens_received(broker) == [None]


@pytest.mark.parametrize("content", [None, b"", b"first\r\nX-Other: 1", "토큰".encode()])
def test_event_stays_due_and_nothing_is_sent_without_a_usable_token(
    make_shop: MakeShop,
    broker: EventBroker,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    content: bytes | None,
) -> None:
    file = tmp_path / "broker-token"
    if content is not None:
        file.write_bytes(content)
    shop = make_shop(broker_url=broker.url, broker_token_path=str(file))

    place_order(shop, shop.product())

    assert tokens_received(broker) == []
    due = [event for event in shop.outbox() if event["type"] == "order.placed"]
    assert [event["sent_at"] for event in due] == [None]
    assert "X-Other" not in capfd.readouterr().err
