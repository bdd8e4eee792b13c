"""Every event is announced by somebody; every one that is not for others alone has a consumer."""

from __future__ import annotations

from events.vocabulary import EVENTS
from shop.orders import apply
from shop.registry import all_specs, consumers_of

NAMES = {event.name for event in EVENTS}


def test_an_event_without_a_consumer_is_declared_to_be_for_others() -> None:
    for event in EVENTS:
        assert event.external == (not consumers_of(event.name)), event.name


def test_functions_announce_and_consume_only_events_that_there_are() -> None:
    for spec in all_specs():
        assert set(spec.emits) <= NAMES, spec.name
        assert len(set(spec.emits)) == len(spec.emits), spec.name
        assert {subscription.event for subscription in spec.subscriptions} <= NAMES, spec.name


def test_each_event_is_announced_by_somebody() -> None:
    assert {name for spec in all_specs() for name in spec.emits} == NAMES


def test_what_the_saga_announces_is_known() -> None:
    assert set(apply.ANNOUNCED_AS.values()) <= NAMES
