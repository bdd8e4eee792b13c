"""Generates all keys and passwords of a deployment: ``python -m tools.make_secrets --keys DIR``.

Prints Secrets (and the ConfigMap of the public keys) for ``kubectl apply -f -``.  With ``--openfaas
FOLDER`` it writes files instead: FOLDER/functions has one for each secret of ``stack.yml``,
FOLDER/broker and FOLDER/migrate have those of these two programs.  Generated values are stored in
DIR, mode 0600, so that a second run prints the same: keep DIR out of Git, or pass the output to
kubeseal, a vault or an external store and delete DIR.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from secrets import token_urlsafe
from urllib.parse import quote

import yaml

from shop.primitives.spec import DATABASE_ROLES, LOGIN_ROLES
from shop.registry import all_specs
from tools.local_platform.secrets import Secrets, local_secrets
from tools.render.objects import PUBLIC_KEYS
from tools.render.openfaas import FILES, OWN, secret_names

ADMIN = "postgres"
# the chart's own mail server, which delivers nothing
MAIL_CATCHER = "smtp://shop-mail:1025"
OPENFAAS_BROKER = "http://shop-broker:8080/"
PASSWORDS = "passwords.json"

SecretData = dict[str, dict[str, str]]


def main(arguments: list[str] | None = None) -> int:
    """Prints the manifests; argparse exits with 2 for invalid arguments."""
    parser = _options()
    options = parser.parse_args(arguments)
    if options.openfaas is not None and not options.issuer:
        parser.error("--openfaas needs --issuer, the public URL of the shop")
    secrets = local_secrets(options.keys, all_specs())
    passwords = _passwords(options.keys)
    data = secret_data(options, secrets, passwords)
    if options.openfaas is not None:
        for name, files in openfaas_files(options, secrets, data).items():
            _write(options.openfaas / name, files)
            print(f"{len(files)} files in {options.openfaas / name}")
        return 0
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
    """The values of each Secret; names and keys are those of the chart's ``secrets.names``."""
    data = {
        f"shop-{role.replace('_', '-')}": {
            "database-url": _url(f"shop_{role}", passwords[role], options.pooler),
            "event-signing-key": secrets.event_keys[role],
        }
        for role in DATABASE_ROLES
    }
    roles = {f"shop_{role}": passwords[role] for role in LOGIN_ROLES}
    userlist = "".join(f'"{role}" "{password}"\n' for role, password in roles.items())
    return data | {
        # past PgBouncer: the auditor's statements take minutes
        "shop-auditor": {
            "database-url": _url("shop_auditor", passwords["auditor"], options.database)
        },
        "shop-carrier-webhook": {"carrier-webhook-secret": secrets.carrier_secret},
        "shop-clock": {"event-signing-key": secrets.event_keys["clock"]},
        "shop-database-admin": {"database-url": _url(ADMIN, passwords[ADMIN], options.database)},
        "shop-grafana": {"admin-password": passwords["grafana"]},
        "shop-jwt": {
            "jwt-private-key": secrets.jwt_private_key,
            "second-factor-key": secrets.second_factor_key,
        },
        "shop-keda": {"connection": _keda_url(passwords["scaler"], options)},
        "shop-links": {"link-key": secrets.link_key},
        "shop-webhook-key": {"webhook-key": secrets.webhook_key},
        "shop-mail": {"smtp-url": options.smtp_url},
        "shop-payment-provider": {
            "payment-provider-api-key": options.provider_key or secrets.provider_api_key,
            "payment-provider-url": options.provider,
        },
        "shop-payment-webhook": {
            "payment-webhook-secret": options.webhook_secret or secrets.webhook_secret
        },
        "shop-pgbouncer": {"userlist.txt": userlist},
        "shop-postgresql": {"password": passwords[ADMIN]},
        "shop-redis": {"redis-url": _redis_url(passwords["redis"], options.redis)},
        "shop-redis-server": {"password": passwords["redis"]},
        "shop-role-passwords": {f"password-{role}": text for role, text in roles.items()},
    }


def openfaas_files(
    options: argparse.Namespace, secrets: Secrets, data: SecretData
) -> dict[str, Mapping[str, str]]:
    """The files of each folder; those of ``functions`` are named as in ``stack.yml``."""
    shared = {file: data[name][file] for name, files in FILES.items() for file in files}
    own = {
        f"{name}-{file}": values[file]
        for name, values in data.items()
        if set(OWN) <= values.keys()
        for file in OWN
    }
    given = {
        "broker-url": options.broker,
        "event-keys": secrets.event_key_set,
        "jwt-audience": options.audience,
        "jwt-issuer": options.issuer,
        "jwt-jwks": secrets.jwks,
    }
    available = {**shared, **own, **given}
    if options.redis_url:
        available["redis-url"] = options.redis_url
    admin = options.admin_url or data["shop-database-admin"]["database-url"]
    return {
        "functions": {name: available[name] for name in secret_names(all_specs())},
        "broker": {
            "database-url": data["shop-relay"]["database-url"],
            "event-keys": secrets.event_key_set,
            **data["shop-clock"],
        },
        "migrate": {"database-url": admin, **data["shop-role-passwords"]},
    }


def _write(folder: Path, files: Mapping[str, str]) -> None:
    """Writes the files, readable by their owner only; removes files of an earlier version."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, text in files.items():
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as output:
            output.write(text)
    for path in folder.iterdir():
        if path.name not in files:
            path.unlink()


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.make_secrets", description=__doc__)
    parser.add_argument("--keys", type=Path, required=True, help="folder of the generated values")
    parser.add_argument("--namespace", default="shop")
    parser.add_argument(
        "--database", default="shop-postgresql:5432", help="host:port of PostgreSQL"
    )
    parser.add_argument(
        "--pooler",
        default="shop-pgbouncer:6432",
        help="host:port of PgBouncer, which functions use",
    )
    parser.add_argument("--redis", default="shop-redis:6379", help="host:port of Redis")
    parser.add_argument(
        "--provider", default="http://shop-sandbox:8099", help="URL of the payment provider"
    )
    parser.add_argument(
        "--openfaas", type=Path, metavar="FOLDER", help="write the secret files of OpenFaaS"
    )
    parser.add_argument("--broker", default=OPENFAAS_BROKER, help="URL of the broker (OpenFaaS)")
    parser.add_argument("--issuer", default="", help="JWT_ISSUER (OpenFaaS)")
    parser.add_argument("--audience", default="shop", help="JWT_AUDIENCE (OpenFaaS)")
    # from the environment, which other users of the machine cannot read
    environment = os.environ
    parser.set_defaults(
        admin_url=environment.get("ADMIN_DATABASE_URL"),
        redis_url=environment.get("REDIS_URL"),
        provider_key=environment.get("PAYMENT_PROVIDER_API_KEY"),
        webhook_secret=environment.get("PAYMENT_WEBHOOK_SECRET"),
        smtp_url=environment.get("SMTP_URL", MAIL_CATCHER),
    )
    return parser


def _passwords(folder: Path) -> dict[str, str]:
    """A password for each role and server, generated once and stored."""
    file = folder / PASSWORDS
    stored: dict[str, str] = json.loads(file.read_text("ascii")) if file.exists() else {}
    names = (*LOGIN_ROLES, ADMIN, "redis", "grafana")
    passwords = {name: stored.get(name) or token_urlsafe(24) for name in names}
    if passwords != stored:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="ascii") as output:
            json.dump(passwords, output)
    return passwords


def _url(user: str, password: str, address: str) -> str:
    """The address of a database; one of another network must verify the server's certificate."""
    tls = "?sslmode=verify-full&sslrootcert=system" if "." in address else ""
    return f"postgresql://{user}:{quote(password)}@{address}/shop{tls}"


def _redis_url(password: str, address: str) -> str:
    return f"{'rediss' if '.' in address else 'redis'}://:{quote(password)}@{address}/0"


def _keda_url(password: str, options: argparse.Namespace) -> str:
    """PostgreSQL's fully qualified address, because KEDA's operator runs in another namespace."""
    host, _, port = options.database.partition(":")
    if "." in host:
        return _url("shop_scaler", password, options.database)
    namespaced = f"{host}.{options.namespace}.svc.cluster.local:{port}"
    return _url("shop_scaler", password, options.database).replace(options.database, namespaced)


def _object(
    kind: str, name: str, namespace: str, field: str, values: Mapping[str, str]
) -> dict[str, object]:
    metadata = {
        "name": name,
        "namespace": namespace,
        "labels": {"app.kubernetes.io/part-of": "msa-shop"},
    }
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, field: dict(values)}


if __name__ == "__main__":
    sys.exit(main())
