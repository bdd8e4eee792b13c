"""Every event is emitted by a function, and has a consumer unless it is declared external."""

from __future__ import annotations

from events.vocabulary import EVENTS
from shop.orders import apply
from shop.registry import all_specs, consumers_of

NAMES = {event.name for event in EVENTS}


def test_event_without_a_consumer_is_declared_external() -> None:
    for event in EVENTS:
        assert event.external == (not consumers_of(event.name)), event.name


def test_functions_reference_existing_events_only() -> None:
    for spec in all_specs():
        assert set(spec.emits) <= NAMES, spec.name
        assert len(set(spec.emits)) == len(spec.emits), spec.name
        assert {subscription.event for subscription in spec.subscriptions} <= NAMES, spec.name


def test_every_event_is_emitted_by_a_function() -> None:
    assert {name for spec in all_specs() for name in spec.emits} == NAMES


def test_events_of_the_order_lifecycle_are_known() -> None:
    assert set(apply.ANNOUNCED_AS.values()) <= NAMES
