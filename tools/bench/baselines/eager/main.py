"""What most shops would be: the same libraries, imported eagerly, and our own place_order on top.

The names are data, because this is the one place where importing all of them is wanted.
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
