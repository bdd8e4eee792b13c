"""Rules for Brokers, Triggers, EventTypes and sources."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tools.manifest_rules.manifests import (
    ISO_DURATION,
    Manifest,
    ManifestSet,
    Rule,
    annotations_of,
    as_seconds,
    describe,
    name_of,
    section,
)

CLASSES = {"MTChannelBasedBroker", "Kafka", "KafkaNamespaced", "RabbitMQBroker"}
NEEDS_CONFIG = {"Kafka", "KafkaNamespaced", "RabbitMQBroker"}
DELIVERY = ("retry", "backoffPolicy", "backoffDelay", "timeout", "deadLetterSink")
DIALECTS = {"exact", "prefix", "suffix", "all", "any", "not", "cesql"}
ATTRIBUTE = re.compile(r"[a-z][a-z0-9]*")
COLD_START_SECONDS = 15


def delivery_is_complete(manifests: ManifestSet) -> Iterator[str]:
    """An incomplete backoff means no delay, and a Trigger's delivery replaces the Broker's."""
    for manifest in manifests.kind("Trigger", "Broker"):
        delivery = section(manifest, "spec", "delivery")
        for field in DELIVERY:
            if not delivery.get(field):
                yield f"{describe(manifest)}: delivery has no {field}"


def delivery_durations_are_iso_8601(manifests: ManifestSet) -> Iterator[str]:
    """Eventing takes ISO 8601 durations (PT30S), Serving takes 30s; the webhook rejects zero."""
    for manifest in manifests.kind("Trigger", "Broker"):
        delivery = section(manifest, "spec", "delivery")
        for field in ("backoffDelay", "timeout"):
            text = str(delivery.get(field, "PT1S"))
            if not ISO_DURATION.fullmatch(text) or text in ("PT0S", "P0D"):
                yield f"{describe(manifest)}: delivery.{field} cannot be {text!r}"


def delivery_timeout_covers_the_function(manifests: ManifestSet) -> Iterator[str]:
    """A broker with a shorter timeout delivers the event again while the first call still runs."""
    for manifest in manifests.kind("Trigger"):
        function = manifests.function(_subscriber(manifest).get("name", ""))
        timeout = as_seconds(section(manifest, "spec", "delivery").get("timeout", ""))
        if function is None or not timeout:
            continue
        pod = function["spec"]["template"]["spec"]
        needed = pod.get("responseStartTimeoutSeconds", 300) + COLD_START_SECONDS
        if timeout < needed:
            yield f"{describe(manifest)}: timeout {timeout:g} s is below the {needed} s needed"


def subscribers_exist(manifests: ManifestSet) -> Iterator[str]:
    """A Trigger's subscriber and every dead letter sink are functions of the same deployment."""
    for manifest in manifests.kind("Trigger", "Broker"):
        for reference in (
            section(manifest, "spec", "delivery", "deadLetterSink", "ref"),
            _subscriber(manifest),
        ):
            if reference and manifests.function(reference.get("name", "")) is None:
                yield f"{describe(manifest)}: there is no function {reference.get('name')}"


def subscribers_use_the_events_path(manifests: ManifestSet) -> Iterator[str]:
    """CloudEvents are accepted at ``/events``; a subscriber inside the filter is ignored."""
    for manifest in manifests.kind("Trigger"):
        if "subscriber" in section(manifest, "spec", "filter"):
            yield f"{describe(manifest)}: has its subscriber under filter"
        if section(manifest, "spec", "subscriber").get("uri") != "/events":
            yield f"{describe(manifest)}: does not deliver to /events"


def filters_have_one_dialect_each(manifests: ManifestSet) -> Iterator[str]:
    """The webhook rejects two dialects in an entry and attributes with dashes or capitals."""
    for manifest in manifests.kind("Trigger"):
        for entry in manifest["spec"].get("filters", ()):
            if len(entry) != 1 or not entry.keys() <= DIALECTS:
                yield f"{describe(manifest)}: a filter does not have exactly one dialect"
            conditions: list[Manifest] = [v for v in entry.values() if isinstance(v, dict)]
            for name in (name for condition in conditions for name in condition):
                if not ATTRIBUTE.fullmatch(name) and name not in DIALECTS:
                    yield f"{describe(manifest)}: {name} is not a valid attribute name"


def triggers_filter_by_type(manifests: ManifestSet) -> Iterator[str]:
    """A Trigger without an exact type receives every event."""
    for manifest in manifests.kind("Trigger"):
        if not _types(manifest):
            yield f"{describe(manifest)}: does not filter by an exact type"


def event_types_are_declared_and_emitted(manifests: ManifestSet) -> Iterator[str]:
    """Each type of a Trigger has an EventType, and each EventType is emitted by a function."""
    catalogue = manifests.event_types()
    for manifest in manifests.kind("Trigger"):
        for kind in _types(manifest) - catalogue:
            yield f"{describe(manifest)}: {kind} has no EventType"
    for kind in sorted(catalogue - manifests.emitted):
        yield f"EventType {kind}: no function emits it"


def broker_classes_are_known(manifests: ManifestSet) -> Iterator[str]:
    """Without a class the default of the cluster applies; Kafka and RabbitMQ need a config."""
    for manifest in manifests.kind("Broker"):
        kind = annotations_of(manifest).get("eventing.knative.dev/broker.class", "")
        if kind not in CLASSES:
            yield f"{describe(manifest)}: has no known class ({kind or 'none'})"
        elif kind in NEEDS_CONFIG and not manifest["spec"].get("config"):
            yield f"{describe(manifest)}: {kind} needs spec.config"


def trigger_brokers_exist(manifests: ManifestSet) -> Iterator[str]:
    """A Trigger of a broker that does not exist never becomes ready."""
    brokers = {name_of(manifest) for manifest in manifests.kind("Broker")}
    for manifest in manifests.kind("Trigger"):
        if brokers and manifest["spec"].get("broker") not in brokers:
            yield f"{describe(manifest)}: there is no broker {manifest['spec'].get('broker')}"


def ping_sources_are_not_used(manifests: ManifestSet) -> Iterator[str]:
    """A PingSource cannot sign its events, and functions accept signed events only."""
    for manifest in manifests.kind("PingSource"):
        yield f"{describe(manifest)}: its events have no signature; use a CronJob of tools.tick"


def _subscriber(trigger: Manifest) -> Manifest:
    return section(trigger, "spec", "subscriber", "ref")


def _types(trigger: Manifest) -> set[str]:
    filters: list[Manifest] = trigger["spec"].get("filters", [])
    exact = [section(each, "exact").get("type", "") for each in filters]
    legacy = section(trigger, "spec", "filter", "attributes").get("type", "")
    return {name for name in (*exact, legacy) if name}


RULES: tuple[Rule, ...] = (
    delivery_is_complete,
    delivery_durations_are_iso_8601,
    delivery_timeout_covers_the_function,
    subscribers_exist,
    subscribers_use_the_events_path,
    filters_have_one_dialect_each,
    triggers_filter_by_type,
    event_types_are_declared_and_emitted,
    broker_classes_are_known,
    trigger_brokers_exist,
    ping_sources_are_not_used,
)
