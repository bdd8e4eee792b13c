"""Rules for Brokers, Triggers, EventTypes and sources."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tools.manifest_rules.manifests import (
    ISO_DURATION,
    Manifest,
    Rule,
    World,
    annotations_of,
    as_seconds,
    name_of,
    shown,
)

CLASSES = {"MTChannelBasedBroker", "Kafka", "KafkaNamespaced", "RabbitMQBroker"}
NEEDS_CONFIG = {"Kafka", "KafkaNamespaced", "RabbitMQBroker"}
DELIVERY = ("retry", "backoffPolicy", "backoffDelay", "timeout", "deadLetterSink")
DIALECTS = {"exact", "prefix", "suffix", "all", "any", "not", "cesql"}
ATTRIBUTE = re.compile(r"[a-z][a-z0-9]*")
COLD_START_SECONDS = 15


def delivery_is_whole(world: World) -> Iterator[str]:
    """One backoff field alone means no waiting, and a Trigger's block hides the Broker's."""
    for thing in world.kind("Trigger", "Broker"):
        delivery = thing["spec"].get("delivery") or {}
        for field in DELIVERY:
            if not delivery.get(field):
                yield f"{shown(thing)}: delivery has no {field}"


def delivery_has_iso_durations(world: World) -> Iterator[str]:
    """Eventing wants PT30S where Serving wants 30s; zero is refused."""
    for thing in world.kind("Trigger", "Broker"):
        delivery = thing["spec"].get("delivery") or {}
        for field in ("backoffDelay", "timeout"):
            text = str(delivery.get(field, "PT1S"))
            if not ISO_DURATION.fullmatch(text) or text in ("PT0S", "P0D"):
                yield f"{shown(thing)}: delivery.{field} cannot be {text!r}"


def delivery_waits_for_the_function(world: World) -> Iterator[str]:
    """A broker that gives up first starts the same event a second time beside the first."""
    for thing in world.kind("Trigger"):
        function = world.function(_subscriber(thing).get("name", ""))
        timeout = as_seconds((thing["spec"].get("delivery") or {}).get("timeout", ""))
        if function is None or not timeout:
            continue
        pod = function["spec"]["template"]["spec"]
        needed = pod.get("responseStartTimeoutSeconds", 300) + COLD_START_SECONDS
        if timeout < needed:
            yield f"{shown(thing)}: waits {timeout:g} s for a function that may take {needed} s"


def subscribers_are_there(world: World) -> Iterator[str]:
    """A Trigger's subscriber and every dead letter sink are functions of the same deployment."""
    for thing in world.kind("Trigger", "Broker"):
        sink = ((thing["spec"].get("delivery") or {}).get("deadLetterSink") or {}).get("ref")
        for reference in (sink, _subscriber(thing) if thing["kind"] == "Trigger" else None):
            if reference and world.function(reference.get("name", "")) is None:
                yield f"{shown(thing)}: there is no function {reference.get('name')}"


def subscribers_are_asked_at_events(world: World) -> Iterator[str]:
    """``/events`` is where CloudEvents are taken; a subscriber inside the filter is lost."""
    for thing in world.kind("Trigger"):
        spec = thing["spec"]
        if "subscriber" in (spec.get("filter") or {}):
            yield f"{shown(thing)}: has its subscriber under filter"
        if (spec.get("subscriber") or {}).get("uri") != "/events":
            yield f"{shown(thing)}: does not deliver to /events"


def filters_have_one_dialect_each(world: World) -> Iterator[str]:
    """The webhook refuses two dialects in an entry and attributes with dashes or capitals."""
    for thing in world.kind("Trigger"):
        for entry in thing["spec"].get("filters", ()):
            if len(entry) != 1 or not entry.keys() <= DIALECTS:
                yield f"{shown(thing)}: a filter has not exactly one dialect"
            names = [n for v in entry.values() if isinstance(v, dict) for n in v]
            for name in names:
                if not ATTRIBUTE.fullmatch(name) and name not in DIALECTS:
                    yield f"{shown(thing)}: {name} is no attribute's name"


def every_trigger_has_a_type(world: World) -> Iterator[str]:
    """A Trigger without an exact type is called for every event there is."""
    for thing in world.kind("Trigger"):
        if not _types(thing):
            yield f"{shown(thing)}: filters by no exact type"


def events_have_both_ends(world: World) -> Iterator[str]:
    """What a Trigger waits for is in the catalogue, and what is there is emitted by a function."""
    catalogue = world.event_types()
    for thing in world.kind("Trigger"):
        for kind in _types(thing) - catalogue:
            yield f"{shown(thing)}: {kind} is no EventType"
    for kind in sorted(catalogue - world.emitted):
        yield f"EventType {kind}: no function emits it"


def broker_classes_are_known(world: World) -> Iterator[str]:
    """Without a class the cluster's default decides; Kafka and RabbitMQ need a config."""
    for thing in world.kind("Broker"):
        kind = annotations_of(thing).get("eventing.knative.dev/broker.class", "")
        if kind not in CLASSES:
            yield f"{shown(thing)}: has no class that we know ({kind or 'none'})"
        elif kind in NEEDS_CONFIG and not thing["spec"].get("config"):
            yield f"{shown(thing)}: {kind} needs spec.config"


def triggers_have_their_broker(world: World) -> Iterator[str]:
    """A Trigger of a broker that is not there waits for ever."""
    brokers = {name_of(thing) for thing in world.kind("Broker")}
    for thing in world.kind("Trigger"):
        if brokers and thing["spec"].get("broker") not in brokers:
            yield f"{shown(thing)}: there is no broker {thing['spec'].get('broker')}"


def ticks_are_signed(world: World) -> Iterator[str]:
    """A PingSource cannot sign, and a function takes nothing unsigned."""
    for thing in world.kind("PingSource"):
        yield f"{shown(thing)}: its ticks are refused; use a CronJob of tools.tick"


def _subscriber(trigger: Manifest) -> dict[str, Any]:
    return (trigger["spec"].get("subscriber") or {}).get("ref") or {}


def _types(trigger: Manifest) -> set[str]:
    spec = trigger["spec"]
    exact = [entry.get("exact", {}).get("type") for entry in spec.get("filters", ())]
    old = ((spec.get("filter") or {}).get("attributes") or {}).get("type")
    return {kind for kind in (*exact, old) if kind}


RULES: tuple[Rule, ...] = (
    delivery_is_whole,
    delivery_has_iso_durations,
    delivery_waits_for_the_function,
    subscribers_are_there,
    subscribers_are_asked_at_events,
    filters_have_one_dialect_each,
    every_trigger_has_a_type,
    events_have_both_ends,
    broker_classes_are_known,
    triggers_have_their_broker,
    ticks_are_signed,
)
