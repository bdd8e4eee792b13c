"""Renders the TypeScript types of the API for ``web/``, from the OpenAPI document.

One type for each schema, and ``Endpoints``: what each route takes and returns.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shop.primitives.spec import Route
from shop.registry import all_specs
from tools.render import models, openapi
from tools.render.documents import MARK
from tools.render.models import REFERENCE, Schema

CONTRACT = Path("web/src/shared/api/contract.ts")
SCALARS: Mapping[str, str] = {
    "boolean": "boolean",
    "integer": "number",
    "null": "null",
    "number": "number",
    "string": "string",
}


def render() -> dict[Path, str]:
    """The file with all types."""
    specs = all_specs()
    collected = models.collect(specs)
    document = openapi.document(specs, collected)
    schemas: Mapping[str, Schema] = document["components"]["schemas"]
    types = [_declaration(name, schema) for name, schema in sorted(schemas.items())]
    routes = [
        _endpoint(route, document["paths"][route.path][route.method.lower()])
        for route in sorted(
            (route for spec in specs for route in spec.routes),
            key=lambda route: (route.path, route.method),
        )
    ]
    endpoints = "export interface Endpoints {\n" + "".join(routes) + "}\n"
    return {CONTRACT: "\n".join((f"// {MARK}\n", *types, endpoints))}


def _declaration(name: str, schema: Schema) -> str:
    shape = type_of(schema)
    if shape.startswith("{"):
        return f"{_comment(schema)}export interface {name} {shape}\n"
    return f"{_comment(schema)}export type {name} = {shape};\n"


def _comment(schema: Schema) -> str:
    first = str(schema.get("description", "")).split("\n")[0].replace("``", "`")
    return f"/** {first} */\n" if first else ""


def type_of(schema: Schema, indent: str = "") -> str:
    """The TypeScript type of a JSON Schema; ValueError for a keyword that has no such type."""
    match schema:
        case {"$ref": str(reference)}:
            return reference.removeprefix(REFERENCE)
        case {"const": value}:
            return json.dumps(value)
        case {"enum": [*values]}:
            return " | ".join(json.dumps(value) for value in values)
        case {"anyOf": [*options]} | {"oneOf": [*options]}:
            return " | ".join(dict.fromkeys(type_of(option, indent) for option in options))
        case {"type": "array"}:
            items = type_of(schema.get("items", {}), indent)
            return f"{items}[]" if items.isidentifier() else f"({items})[]"
        case {"type": "object"}:
            return _object(schema, indent)
        case {"type": str(name)} if name in SCALARS:
            return SCALARS[name]
        case _ if not set(schema) & {"type", "allOf", "not"}:
            return "unknown"
        case _:
            raise ValueError(f"no TypeScript type for {schema}")


def _object(schema: Schema, indent: str) -> str:
    properties: Mapping[str, Schema] = schema.get("properties", {})
    if not properties:
        values: Schema | bool = schema.get("additionalProperties", False)
        of_values = "unknown" if isinstance(values, bool) else type_of(values, indent)
        return f"Record<string, {of_values}>"
    required = schema.get("required", ())
    inner = indent + "  "
    lines = [
        f"{inner}{_name(name)}{'' if name in required else '?'}: {type_of(shape, inner)};\n"
        for name, shape in properties.items()
    ]
    return "{\n" + "".join(lines) + indent + "}"


def _name(name: str) -> str:
    return name if name.isidentifier() else json.dumps(name)


def _endpoint(route: Route, operation: Schema) -> str:
    query = {
        each["name"]: each for each in operation.get("parameters", []) if each["in"] == "query"
    }
    path = [each["name"] for each in operation.get("parameters", []) if each["in"] == "path"]
    members = {
        "path": _members(dict.fromkeys(path, "string"), path),
        "query": _members(
            {name: type_of(each["schema"], "      ") for name, each in query.items()},
            [name for name, each in query.items() if each.get("required")],
        ),
        "body": _content(operation.get("requestBody", {})),
        "response": _content(operation["responses"][str(route.status)]),
    }
    lines = "".join(f"    {name}: {shape};\n" for name, shape in members.items())
    return f'  /** {route.summary} */\n  "{route.method} {route.path}": {{\n{lines}  }};\n'


def _members(types: Mapping[str, str], required: list[str]) -> str:
    if not types:
        return "undefined"
    lines = [
        f"      {_name(name)}{'' if name in required else '?'}: {shape};\n"
        for name, shape in types.items()
    ]
    return "{\n" + "".join(lines) + "    }"


def _content(message: Mapping[str, Any]) -> str:
    """The type of a JSON body; undefined where there is none or it is no JSON."""
    schema = message.get("content", {}).get("application/json", {}).get("schema")
    return "undefined" if schema is None else type_of(schema, "    ")
