"""Makes all keys and passwords of an install: ``python -m tools.make_secrets --keys DIR``.

Prints Secrets (and the ConfigMap of the public keys) for ``kubectl apply -f -``.  What is drawn is
kept in DIR, mode 0600, so that a second run prints the same: keep DIR out of Git, or feed the
output to kubeseal, a vault or an external store and delete it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from secrets import token_urlsafe
from typing import Any
from urllib.parse import quote

import yaml

from shop.primitives.spec import DATABASE_ROLES
from shop.registry import all_specs
from tools.local_platform.secrets import Secrets, local_secrets
from tools.render.objects import PUBLIC_KEYS

ADMIN = "postgres"
PASSWORDS = "passwords.json"

SecretData = dict[str, dict[str, str]]


def main(arguments: list[str] | None = None) -> int:
    """Prints the manifests; always 0, or argparse's 2 for wrong use."""
    options = _options().parse_args(arguments)
    secrets = local_secrets(options.keys, all_specs())
    passwords = _passwords(options.keys)
    data = secret_data(options, secrets, passwords)
    public = {"JWT_JWKS": secrets.jwks, "EVENT_KEYS": secrets.event_key_set}
    documents = [_object("ConfigMap", PUBLIC_KEYS, options.namespace, "data", public)]
    documents += [
        _object("Secret", name, options.namespace, "stringData", values)
        for name, values in sorted(data.items())
    ]
    yaml.safe_dump_all(documents, sys.stdout, allow_unicode=True)
    return 0


def secret_data(
    options: argparse.Namespace, secrets: Secrets, passwords: Mapping[str, str]
) -> SecretData:
    """What each Secret holds: names and keys are those of the chart's ``secrets.names``."""
    data = {
        f"shop-{role.replace('_', '-')}": {
            "database-url": _url(f"shop_{role}", passwords[role], options.pooler),
            "event-signing-key": secrets.event_keys[role],
        }
        for role in DATABASE_ROLES
    }
    roles = {f"shop_{role}": passwords[role] for role in DATABASE_ROLES}
    userlist = "".join(f'"{role}" "{password}"\n' for role, password in roles.items())
    return data | {
        "shop-clock": {"event-signing-key": secrets.event_keys["clock"]},
        "shop-database-admin": {"database-url": _url(ADMIN, passwords[ADMIN], options.database)},
        "shop-grafana": {"admin-password": passwords["grafana"]},
        "shop-jwt": {"jwt-private-key": secrets.jwt_private_key},
        "shop-keda": {"connection": _url("shop_ops", passwords["ops"], _far(options))},
        "shop-payment-provider": {
            "payment-provider-api-key": options.provider_key or secrets.provider_api_key,
            "payment-provider-url": options.provider,
        },
        "shop-payment-webhook": {
            "payment-webhook-secret": options.webhook_secret or secrets.webhook_secret
        },
        "shop-pgbouncer": {"userlist.txt": userlist},
        "shop-postgresql": {"password": passwords[ADMIN]},
        "shop-redis": {"redis-url": f"redis://:{quote(passwords['redis'])}@{options.redis}/0"},
        "shop-redis-server": {"password": passwords["redis"]},
        "shop-role-passwords": {f"password-{role}": text for role, text in roles.items()},
    }


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.make_secrets", description=__doc__)
    parser.add_argument("--keys", type=Path, required=True, help="folder that keeps what is drawn")
    parser.add_argument("--namespace", default="shop")
    parser.add_argument("--database", default="shop-postgresql:5432", help="PostgreSQL's host:port")
    parser.add_argument("--pooler", default="shop-pgbouncer:6432", help="where functions connect")
    parser.add_argument("--redis", default="shop-redis:6379", help="host:port")
    parser.add_argument("--provider", default="http://shop-sandbox:8099", help="payment provider")
    # by the environment, which other users of the machine cannot list
    environment = os.environ
    parser.set_defaults(
        provider_key=environment.get("PAYMENT_PROVIDER_API_KEY"),
        webhook_secret=environment.get("PAYMENT_WEBHOOK_SECRET"),
    )
    return parser


def _passwords(folder: Path) -> dict[str, str]:
    """One for each role and server, drawn once and kept."""
    file = folder / PASSWORDS
    kept: dict[str, str] = json.loads(file.read_text("ascii")) if file.exists() else {}
    wanted = (*DATABASE_ROLES, ADMIN, "redis", "grafana")
    whole = {name: kept.get(name) or token_urlsafe(24) for name in wanted}
    if whole != kept:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="ascii") as output:
            json.dump(whole, output)
    return whole


def _url(user: str, password: str, address: str) -> str:
    return f"postgresql://{user}:{quote(password)}@{address}/shop"


def _far(options: argparse.Namespace) -> str:
    """PostgreSQL's address as KEDA's operator sees it, which lives in another namespace."""
    host, _, port = options.database.partition(":")
    is_short = "." not in host
    return f"{host}.{options.namespace}.svc.cluster.local:{port}" if is_short else options.database


def _object(
    kind: str, name: str, namespace: str, field: str, values: Mapping[str, str]
) -> dict[str, Any]:
    metadata = {
        "name": name,
        "namespace": namespace,
        "labels": {"app.kubernetes.io/part-of": "msa-shop"},
    }
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, field: dict(values)}


if __name__ == "__main__":
    sys.exit(main())
