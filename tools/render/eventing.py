"""Renders Knative Eventing: Brokers of three classes, Triggers, EventTypes, and signed ticks."""

from __future__ import annotations

from events.event import ShopEvent
from events.vocabulary import EVENTS, class_of
from shop.primitives.http_limits import COLD_START_SECONDS, REQUEST_SECONDS_MIN, request_seconds
from shop.primitives.spec import FunctionSpec, Schedule
from shop.registry import all_specs
from tools.render.events import schema_of
from tools.render.objects import (
    CLOCK_DOMAIN,
    ENVIRONMENT,
    HARDENED,
    IMAGE,
    NAMESPACE,
    SECRETS_MOUNT,
    TMP_MOUNT,
    TMP_VOLUME,
    Manifest,
    account_of,
    labels_of,
    metadata,
    name_of,
)

BROKER = "shop"
TICK_TRIES = 3
# delays of 0.5 s, doubled eight times: 127 s with channels, 255 s with Kafka; a failover is shorter
RETRIES = 8
DELAY = "PT0.5S"

# ingress address by folder name, which is also the chart's `broker.class`
INGRESS = {
    "imc": f"http://broker-ingress.knative-eventing.svc.cluster.local/{NAMESPACE}/{BROKER}",
    "kafka": f"http://kafka-broker-ingress.knative-eventing.svc.cluster.local/{NAMESPACE}/{BROKER}",
    "rabbitmq": f"http://{BROKER}-broker-ingress.{NAMESPACE}.svc.cluster.local",
}
CLASSES = {"imc": "MTChannelBasedBroker", "kafka": "Kafka", "rabbitmq": "RabbitMQBroker"}
CONFIGS: dict[str, Manifest] = {
    "kafka": {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "name": "kafka-broker-config",
        "namespace": "knative-eventing",
    },
    "rabbitmq": {
        "apiVersion": "eventing.knative.dev/v1alpha1",
        "kind": "RabbitmqBrokerConfig",
        "name": "shop",
        "namespace": NAMESPACE,
    },
}


def broker_objects(kind: str) -> list[Manifest]:
    """The Broker of one class and its configuration."""
    return [broker(kind), *_configuration(kind)]


def broker(kind: str) -> Manifest:
    """The shop's broker; its delivery applies to Triggers without their own."""
    config = {"config": CONFIGS[kind]} if kind in CONFIGS else {}
    return {
        "apiVersion": "eventing.knative.dev/v1",
        "kind": "Broker",
        "metadata": metadata(
            BROKER, annotations={"eventing.knative.dev/broker.class": CLASSES[kind]}
        ),
        "spec": {**config, "delivery": delivery(REQUEST_SECONDS_MIN)},
    }


def _configuration(kind: str) -> list[Manifest]:
    if kind == "kafka":
        data = {
            "bootstrap.servers": "kafka-bootstrap.kafka.svc:9092",
            "default.topic.partitions": "10",
            "default.topic.replication.factor": "3",
        }
        meta = metadata("kafka-broker-config", namespace="knative-eventing")
        return [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}]
    if kind == "rabbitmq":
        spec = {
            "rabbitmqClusterReference": {"name": "rabbitmq", "namespace": "rabbitmq"},
            "queueType": "quorum",
        }
        return [
            {
                "apiVersion": "eventing.knative.dev/v1alpha1",
                "kind": "RabbitmqBrokerConfig",
                "metadata": metadata("shop"),
                "spec": spec,
            }
        ]
    return []


def trigger(spec: FunctionSpec, event: str) -> Manifest:
    """The Trigger of one subscription; its delivery is complete, since it replaces the Broker's."""
    return {
        "apiVersion": "eventing.knative.dev/v1",
        "kind": "Trigger",
        "metadata": metadata(
            trigger_name(spec, event),
            labels_of(spec),
            # handlers accept any order, so an event need not wait for the retries of another
            annotations={"kafka.eventing.knative.dev/delivery.order": "unordered"},
        ),
        "spec": {
            "broker": BROKER,
            "filters": [{"exact": {"type": class_of(event).type}}],
            "subscriber": {"ref": service_ref(name_of(spec)), "uri": "/events"},
            "delivery": delivery(request_seconds(spec)),
        },
    }


def trigger_name(spec: FunctionSpec, event: str) -> str:
    """Never changes: a Kafka Trigger with a new name starts at the end of the log."""
    return f"{name_of(spec)}-on-{event.replace('.', '-')}"


def delivery(seconds: int) -> Manifest:
    """The complete delivery block for a function whose requests may take ``seconds``."""
    block: Manifest = {
        "retry": RETRIES,
        "backoffPolicy": "exponential",
        "backoffDelay": DELAY,
        "timeout": f"PT{seconds + COLD_START_SECONDS}S",
    }
    for spec in all_specs():
        if spec.receives_dead_letters:
            block["deadLetterSink"] = {"ref": service_ref(name_of(spec)), "uri": "/events"}
    return block


def service_ref(name: str) -> Manifest:
    """A reference to a function's Service."""
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "name": name,
        "namespace": NAMESPACE,
    }


def broker_ref() -> Manifest:
    """A reference to the broker."""
    return {
        "apiVersion": "eventing.knative.dev/v1",
        "kind": "Broker",
        "name": BROKER,
        "namespace": NAMESPACE,
    }


def event_sources() -> list[tuple[type[ShopEvent], FunctionSpec]]:
    """Each event with each function that emits it."""
    return [(event, spec) for event in EVENTS for spec in all_specs() if event.name in spec.emits]


def event_type_name(event: type[ShopEvent], spec: FunctionSpec) -> str:
    """The name of an event's EventType; its spec is immutable, so the name has the source."""
    name = event.name.replace(".", "-")
    return f"shop-{name}-v{event.version}-from-{spec.name.replace('_', '-')}"


def event_type(event: type[ShopEvent], spec: FunctionSpec) -> Manifest:
    """The EventType of an event that a function emits: a source is no template."""
    return {
        "apiVersion": "eventing.knative.dev/v1beta3",
        "kind": "EventType",
        "metadata": metadata(event_type_name(event, spec)),
        "spec": {
            "reference": broker_ref(),
            "description": schema_of(event)["description"],
            "attributes": [
                {"name": "specversion", "required": True, "value": "1.0"},
                {"name": "type", "required": True, "value": event.type},
                {"name": "source", "required": True, "value": spec.source},
                {"name": "id", "required": True},
                {"name": "subject", "required": True},
                {"name": "dataschema", "required": True, "value": event.dataschema},
                {"name": "partitionkey", "required": True},
                {"name": "sigkid", "required": True},
                {"name": "sig", "required": True},
            ],
        },
    }


# ---------------------------------------------------------------- clock


def clock_name(schedule: Schedule) -> str:
    """The name of a schedule's CronJob."""
    return f"shop-clock-{schedule.name}"


def clock(spec: FunctionSpec, schedule: Schedule) -> Manifest:
    """A CronJob that sends one signed tick.

    Not a PingSource: it cannot sign, and functions accept signed events only.  A missed tick has no
    effect beyond delay, since each tick processes all due work.
    """
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": metadata(clock_name(schedule), clock_labels(spec)),
        "spec": {
            "schedule": schedule.cron,
            "timeZone": "Etc/UTC",
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": 60,
            "successfulJobsHistoryLimit": 1,
            "failedJobsHistoryLimit": 3,
            "jobTemplate": {"spec": tick_job(spec, schedule)},
        },
    }


def clock_labels(spec: FunctionSpec) -> dict[str, str]:
    """The labels of a tick, which belongs to the trust domain of the clock."""
    return {**labels_of(spec), "msa-shop/trust-domain": CLOCK_DOMAIN}


def tick_job(spec: FunctionSpec, schedule: Schedule) -> Manifest:
    """The Job of one tick; a tick without success is sent again by a restarted container."""
    sink = f"http://{name_of(spec)}.{NAMESPACE}.svc.cluster.local/events"
    return {
        "backoffLimit": TICK_TRIES - 1,
        "activeDeadlineSeconds": TICK_TRIES * (request_seconds(spec) + COLD_START_SECONDS),
        "template": {
            "metadata": {"labels": {**clock_labels(spec), "msa-shop/kind": "tick"}},
            "spec": {
                "serviceAccountName": account_of(CLOCK_DOMAIN),
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                "restartPolicy": "OnFailure",
                "containers": [_tick_container([schedule.name, sink])],
                "volumes": [
                    TMP_VOLUME,
                    {"name": "secrets", "secret": {"secretName": "shop-clock"}},
                ],
            },
        },
    }


def _tick_container(arguments: list[str]) -> Manifest:
    """The container that sends ticks; the only one with the clock's key."""
    return {
        "name": "tick",
        "image": IMAGE,
        "command": ["python", "-m", "tools.tick"],
        "args": arguments,
        "envFrom": ENVIRONMENT,
        "volumeMounts": [TMP_MOUNT, SECRETS_MOUNT],
        "resources": {
            "requests": {"cpu": "10m", "memory": "64Mi"},
            "limits": {"cpu": "1", "memory": "128Mi"},
        },
        "securityContext": HARDENED,
    }
