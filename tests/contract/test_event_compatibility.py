"""Published events keep their shape: one may be added, none may change or go.

Readers are strict (an unknown property is refused) and old rows are sent for weeks, so even an
added property breaks somebody.  What needs another shape is a new version, announced beside the
old one.
"""

from __future__ import annotations

import copy
import json
from dataclasses import fields
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema_rs import Draft202012Validator, meta

from events import vocabulary
from events.errors import Malformed
from events.event import BIGINT_MAX, Currency, ShopEvent
from shop.registry import all_specs
from tools.render.events import (
    FROZEN_SHAPES,
    example_of,
    frozen_with_new,
    render,
    schema_file,
    schema_of,
    shape_of,
)

ROOT = Path(__file__).parents[2]
FROZEN: dict[str, Any] = json.loads((ROOT / FROZEN_SHAPES).read_text("utf-8"))
CURRENT = {c.type: shape_of(c) for c in vocabulary.EVENTS}
VALIDATORS = {
    c: Draft202012Validator(schema_of(c), validate_formats=True) for c in vocabulary.EVENTS
}
VALUES: dict[object, st.SearchStrategy[object]] = {  # by the annotation of the field
    UUID: st.uuids(),
    int: st.integers(1, BIGINT_MAX),
    date: st.dates(),
    Currency: st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=3, max_size=3),
}
ODD_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.text(max_size=5),
    st.uuids().map(str),
    st.uuids().map(lambda u: str(u).upper()),
    st.uuids().map(lambda u: u.hex),
    st.dates(date(1000, 1, 1)).map(str),
    st.sampled_from(["KRW", "krw", "2026-02-30", "2026-01-31\n", "KRW\n", 0, 2**63, [], {}]),
)


def broken_promises(frozen: dict[str, Any], current: dict[str, Any]) -> list[str]:
    """Types whose shape is gone or differs; a type that is only in ``current`` breaks nothing."""
    gone = [f"{event_type} is gone" for event_type in frozen.keys() - current.keys()]
    both = frozen.keys() & current.keys()
    changed = [f"{t} has another shape" for t in both if frozen[t] != current[t]]
    return sorted(gone + changed)


def test_published_schemas_are_unchanged() -> None:
    assert broken_promises(FROZEN, CURRENT) == []


def test_every_event_has_a_frozen_schema() -> None:
    missing = sorted(CURRENT.keys() - FROZEN.keys())
    assert missing == [], "run python -m tools.render.events"


def _drop_property(shape: dict[str, Any]) -> None:
    shape["properties"].popitem()


def _add_property(shape: dict[str, Any]) -> None:
    shape["properties"]["note"] = {"type": "string"}


def _make_optional(shape: dict[str, Any]) -> None:
    shape["required"].pop()


def _open(shape: dict[str, Any]) -> None:
    shape["additionalProperties"] = True


def _retype(shape: dict[str, Any]) -> None:
    next(iter(shape["properties"].values()))["type"] = "number"


@pytest.mark.parametrize("change", [_drop_property, _add_property, _make_optional, _open, _retype])
def test_incompatible_change_is_detected(change: Any) -> None:
    current = copy.deepcopy(CURRENT)
    change(current["com.msashop.refund.requested.v1"])
    assert broken_promises(CURRENT, current) == [
        "com.msashop.refund.requested.v1 has another shape"
    ]


def test_removed_event_is_detected() -> None:
    current = {t: s for t, s in CURRENT.items() if t != "com.msashop.order.paid.v1"}
    assert broken_promises(CURRENT, current) == ["com.msashop.order.paid.v1 is gone"]


def test_added_event_is_compatible() -> None:
    added = {**CURRENT, "com.msashop.order.placed.v2": {"type": "object"}}
    assert broken_promises(CURRENT, added) == []


def test_freezing_adds_and_never_replaces() -> None:
    promised = {"com.msashop.order.paid.v1": {"type": "other"}, "com.msashop.gone.now.v1": {}}
    frozen = frozen_with_new(promised)
    assert {t: frozen[t] for t in promised} == promised
    assert frozen["com.msashop.order.placed.v1"] == CURRENT["com.msashop.order.placed.v1"]


def test_committed_schemas_match_the_classes() -> None:
    rendered = {p: t for p, t in render().items() if p.parent == Path("events/schemas")}
    folder = ROOT / "events/schemas"
    assert {p.name for p in folder.iterdir()} == {p.name for p in rendered}
    for path, text in rendered.items():
        assert (ROOT / path).read_text("utf-8") == text, f"{path}: run make render"


def test_rendering_is_deterministic() -> None:
    assert render() == render()


@pytest.mark.parametrize("event_class", vocabulary.EVENTS, ids=lambda c: c.name)
def test_schema_and_its_example_are_valid(event_class: type[ShopEvent]) -> None:
    schema = schema_of(event_class)
    meta.validate(schema)
    example = example_of(event_class)
    assert VALIDATORS[event_class].is_valid(example)
    assert event_class.from_data(example).data() == example
    assert schema["$id"] == event_class.dataschema
    assert event_class.dataschema.endswith(f"/schemas/{schema_file(event_class).name}")


@given(
    st.sampled_from(vocabulary.EVENTS).flatmap(
        lambda c: st.builds(c, **{f.name: VALUES[f.type] for f in fields(c)})
    )
)
def test_data_of_every_event_matches_its_schema(event: ShopEvent) -> None:
    VALIDATORS[type(event)].validate(event.data())


# the first draw builds the strategies, which is slow on a machine that is busy
@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), st.sampled_from(vocabulary.EVENTS))
def test_schema_and_reader_accept_the_same_data(
    data: st.DataObject, event_class: type[ShopEvent]
) -> None:
    changes = st.dictionaries(
        st.sampled_from([*example_of(event_class), "x"]), ODD_VALUES, max_size=2
    )
    candidate = {**example_of(event_class), **data.draw(changes)}
    try:
        event_class.from_data(candidate)
        is_read = True
    except Malformed:
        is_read = False
    assert VALIDATORS[event_class].is_valid(candidate) == is_read


def test_functions_emit_and_consume_known_events_only() -> None:
    names = {c.name for c in vocabulary.EVENTS}
    internal = {c.name for c in vocabulary.EVENTS if not c.external}
    for spec in all_specs():
        assert set(spec.emits) <= names, spec.name
        assert {subscription.event for subscription in spec.subscriptions} <= internal, spec.name
