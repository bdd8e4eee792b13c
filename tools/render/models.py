"""Collects JSON Schemas of the functions' pydantic models under unique names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal

from pydantic import BaseModel

from shop.primitives.spec import FunctionSpec, Route
from tools.render.documents import Json

Mode = Literal["validation", "serialization"]
REFERENCE = "#/components/schemas/"

Schema = dict[str, Any]
Key = tuple[str, Mode, str]


@dataclass
class Models:
    """The models of all routes, and their names in the document.

    Models of different functions with equal names and different schemas are prefixed with the
    function; ``Input`` or ``Output`` is appended where one function has both.
    """

    names: dict[Key, str] = field(default_factory=dict)
    schemas: dict[str, Schema] = field(default_factory=dict)

    def reference(self, spec: FunctionSpec, model: str, mode: Mode) -> Schema:
        """A ``$ref`` to a model of the function's ``schema.py``."""
        return {"$ref": REFERENCE + self.names[spec.name, mode, model]}


def collect(specs: tuple[FunctionSpec, ...]) -> Models:
    """The models of all routes; raises AttributeError when a route names a missing one."""
    definitions: dict[Key, Schema] = {}
    for spec in specs:
        for route in spec.routes:
            for model, mode in _models_of(route):
                for name, schema in _definitions(spec, model, mode).items():
                    definitions[spec.name, mode, name] = schema
    names = _unique_names(definitions)
    models = Models(names)
    for key, schema in definitions.items():
        models.schemas[names[key]] = _renamed_object(schema, key, names)
    return models


def query_schema(spec: FunctionSpec, route: Route) -> Schema:
    """The schema of the query model, with all references inlined."""
    assert route.query is not None, f"{route.path} has no query"
    schema = model_of(spec, route.query).model_json_schema(by_alias=True)
    return _inlined_object(schema, schema.get("$defs", {}))


def model_of(spec: FunctionSpec, name: str) -> type[BaseModel]:
    """The pydantic class with a name in the function's ``schema.py``."""
    model: type[BaseModel] = getattr(import_module(f"functions.{spec.name}.schema"), name)
    return model


def targets(value: Json) -> list[str]:
    """The names of all schemas that a part of a document refers to."""
    if isinstance(value, list):
        return [name for inner in value for name in targets(inner)]
    if not isinstance(value, dict):
        return []
    found = [name for inner in value.values() for name in targets(inner)]
    if isinstance(reference := value.get("$ref"), str):
        found.append(reference.removeprefix(REFERENCE))
    return found


def _models_of(route: Route) -> Iterator[tuple[str, Mode]]:
    if route.body:
        yield route.body, "validation"
    if route.response:
        yield route.response, "serialization"


def _definitions(spec: FunctionSpec, name: str, mode: Mode) -> dict[str, Schema]:
    schema = model_of(spec, name).model_json_schema(
        by_alias=True, ref_template=REFERENCE + "{model}", mode=mode
    )
    definitions: dict[str, Schema] = schema.pop("$defs", {})
    return {**definitions, name: schema}


def _unique_names(definitions: Mapping[Key, Schema]) -> dict[Key, str]:
    contents = {key: _content(key, definitions) for key in definitions}
    names: dict[Key, str] = {}
    for key in definitions:
        function, mode, name = key
        same_name = [other for other in definitions if other[2] == name]
        in_function = [other for other in same_name if other[0] == function]
        own = "".join(word.capitalize() for word in function.split("_")) + name
        if len({contents[other] for other in same_name}) == 1:
            names[key] = name
        elif len({contents[other] for other in in_function}) == 1:
            names[key] = own
        else:
            names[key] = own + ("Input" if mode == "validation" else "Output")
    return names


def _content(key: Key, definitions: Mapping[Key, Schema]) -> str:
    function, mode, _ = key
    reachable: dict[str, Schema] = {}
    waiting = [key[2]]
    while waiting:
        name = waiting.pop()
        if name not in reachable:
            reachable[name] = definitions[function, mode, name]
            waiting += targets(reachable[name])
    return json.dumps(reachable, sort_keys=True)


def _renamed_object(schema: Mapping[str, Json], key: Key, names: Mapping[Key, str]) -> Schema:
    renamed: Schema = {name: _renamed(value, key, names) for name, value in schema.items()}
    target = schema.get("$ref")
    if isinstance(target, str):
        renamed["$ref"] = REFERENCE + names[key[0], key[1], target.removeprefix(REFERENCE)]
    return renamed


def _renamed(value: Json, key: Key, names: Mapping[Key, str]) -> Json:
    if isinstance(value, dict):
        return _renamed_object(value, key, names)
    if isinstance(value, list):
        return [_renamed(inner, key, names) for inner in value]
    return value


def _inlined_object(schema: Mapping[str, Json], definitions: Mapping[str, Schema]) -> Schema:
    reference = schema.get("$ref")
    if isinstance(reference, str):
        return _inlined_object(definitions[reference.removeprefix("#/$defs/")], definitions)
    return {k: _inlined(v, definitions) for k, v in schema.items() if k != "$defs"}


def _inlined(value: Json, definitions: Mapping[str, Schema]) -> Json:
    if isinstance(value, dict):
        return _inlined_object(value, definitions)
    if isinstance(value, list):
        return [_inlined(inner, definitions) for inner in value]
    return value
