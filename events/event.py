"""The base class of the shop's events: frozen records of ids, with their JSON and JSON Schema.

An event carries ids only (docs/adr/0004): its data names the rows to read, never their content.
Four forms of value are therefore enough, and each is defined once, in ``_FORMS``: its form in
Python, in JSON and in JSON Schema.

Modules with event classes must not postpone annotations: the forms are looked up by the real type.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import date
from functools import cache
from typing import Any, ClassVar, NewType, Self
from uuid import UUID

from events.errors import Malformed
from events.records import frozen
from events.strict_json import is_object

TYPE_PREFIX = "com.msashop."
DATASCHEMA_BASE = "https://msashop.example"
SCHEMA_FOLDER = "/schemas"

Currency = NewType("Currency", str)


@frozen
class Form:
    """One form of value: its Python type, its JSON type, its parser and its JSON Schema."""

    python: type
    json: type
    parse: Callable[[Any], Any]
    schema: Mapping[str, object]


@frozen(kw_only=True)
class ShopEvent:
    """Something that happened; the first field is the id of its subject.

    Constructing one with a value of the wrong form raises TypeError or ValueError.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    external: ClassVar[bool] = True
    type: ClassVar[str]
    dataschema: ClassVar[str]

    def __init_subclass__(cls) -> None:
        cls.type = f"{TYPE_PREFIX}{cls.name}.v{cls.version}"
        cls.dataschema = f"{DATASCHEMA_BASE}{cls.schema_path()}"

    def __post_init__(self) -> None:
        for attribute, _, form in properties_of(type(self)):
            value = getattr(self, attribute)
            if type(value) is not form.python:
                raise TypeError(f"{self.name}: {attribute} must be {form.python.__name__}")
            form.parse(_plain(form, value))

    @classmethod
    def schema_path(cls) -> str:
        """The schema's path, in the repository below ``events``: ``/schemas/<name>.v<N>.json``."""
        return f"{SCHEMA_FOLDER}/{cls.name}.v{cls.version}.json"

    @classmethod
    def from_data(cls, data: object) -> Self:
        """The event with this data; Malformed 422 unless it has exactly the event's properties."""
        if not is_object(data):
            raise Malformed(422, "the event's data must be a JSON object")
        properties = properties_of(cls)
        unknown = data.keys() - {name for _, name, _ in properties}
        if unknown:
            raise Malformed(422, f"{cls.name} has no such property: {min(unknown)[:40]!r}")
        return cls(**{attribute: _read(form, name, data) for attribute, name, form in properties})

    @property
    def subject(self) -> str:
        """The id of the event's subject, as text; also its partition key."""
        return str(next(iter(self.data().values())))

    def data(self) -> dict[str, str | int]:
        """The event's data as JSON values under camelCase names."""
        return {
            name: _plain(form, getattr(self, attribute))
            for attribute, name, form in properties_of(type(self))
        }


@cache
def properties_of(event_class: type[ShopEvent]) -> tuple[tuple[str, str, Form], ...]:
    """Attribute, JSON name and form of each property of an event, in order."""
    return tuple((f.name, _camel_case(f.name), _FORMS[f.type]) for f in fields(event_class))


def _plain(form: Form, value: Any) -> str | int:
    plain: str | int = form.json(value)
    return plain


def _read(form: Form, name: str, data: Mapping[str, object]) -> object:
    """One property; only its canonical form is accepted."""
    if name not in data:
        raise Malformed(422, f"property {name} is missing")
    value = data[name]
    if type(value) is not form.json:
        raise Malformed(422, f"property {name} has the wrong type")
    try:
        parsed = form.parse(value)
    except ValueError as error:
        raise Malformed(422, f"property {name} has a wrong value") from error
    if _plain(form, parsed) != value:
        raise Malformed(422, f"property {name} is not in its canonical form")
    return parsed


def _camel_case(attribute: str) -> str:
    first, *rest = attribute.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _positive(value: int) -> int:
    if not 1 <= value <= BIGINT_MAX:
        raise ValueError("must be from 1 to the largest bigint")
    return value


def _currency(text: str) -> Currency:
    if not (len(text) == 3 and text.isascii() and text.isalpha() and text.isupper()):
        raise ValueError("must be three capital letters, as in ISO 4217")
    return Currency(text)


BIGINT_MAX = 2**63 - 1
_UUID_PATTERN = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
_DATE_PATTERN = "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
_UUID_SCHEMA = {"type": "string", "format": "uuid", "pattern": _UUID_PATTERN}
_DATE_SCHEMA = {"type": "string", "format": "date", "pattern": _DATE_PATTERN}
_FORMS: Mapping[Any, Form] = {
    UUID: Form(UUID, str, UUID, _UUID_SCHEMA),
    int: Form(int, int, _positive, {"type": "integer", "minimum": 1, "maximum": BIGINT_MAX}),
    date: Form(date, str, date.fromisoformat, _DATE_SCHEMA),
    Currency: Form(str, str, _currency, {"type": "string", "pattern": "^[A-Z]{3}$"}),
}
