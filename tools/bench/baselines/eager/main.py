"""Baseline: place_order under functions-framework with the usual libraries imported at start.

The names are data because no other module may import all of these libraries.
"""

from importlib import import_module

EVERYTHING = (
    "flask",
    "sqlalchemy",
    "sqlalchemy.orm",
    "sqlalchemy.dialects.postgresql.psycopg",
    "psycopg",
    "pydantic",
    "cloudevents.http",
    "jwt",
    "redis",
    "prometheus_client",
    "shop.schema.tables",
    "shop.runtime.http_pipeline",
    "functions.place_order.schema",
    "functions.place_order.handler",
)

for name in EVERYTHING:
    import_module(name)

main = import_module("shop.runtime.framework").entry_point("place_order")
