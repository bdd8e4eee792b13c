"""``shop compose-secrets``: makes the secrets of a Compose shop, and hands each service its own.

Everything is drawn at random at the first run and kept in ``<folder>/master``.  Each service then
gets a folder (a volume of its own, which nobody else mounts) with the files that it needs, named as
settings are.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from secrets import token_urlsafe

from shop.primitives.spec import DATABASE_ROLES, FunctionSpec
from shop.registry import all_specs
from tools.local_platform.secrets import CLOCK, RELAY, Secrets, kept, local_secrets
from tools.render.objects import reads_redis

MASTER = "master"
ADMIN = "postgres"
# In the volume of one service only its one user can look, whoever that is in its image.
READABLE = 0o444

Files = dict[str, str]

REDIS_CONFIGURATION = """\
# made by shop compose-secrets
requirepass {password}
protected-mode yes
save ""
appendonly no
maxmemory 64mb
maxmemory-policy allkeys-lru
"""


def write_secrets(folder: Path) -> int:
    """Writes the folders of all services below ``folder``; returns how many there are.

    A second run changes nothing, except that new functions get theirs.
    """
    master = folder / MASTER
    secrets = local_secrets(master, all_specs())
    passwords = {
        role: kept(master / f"password-{role}", lambda: token_urlsafe(24))
        for role in (*DATABASE_ROLES, ADMIN, "redis", "grafana")
    }
    services = _functions(secrets, passwords) | _others(secrets, passwords)
    for service, files in services.items():
        _write(folder / service, files)
    return len(services)


def _functions(secrets: Secrets, passwords: Files) -> dict[str, Files]:
    return {
        spec.name.replace("_", "-"): _of_function(spec, secrets, passwords) for spec in all_specs()
    }


def _of_function(spec: FunctionSpec, secrets: Secrets, passwords: Files) -> Files:
    files = {"jwt-jwks": secrets.jwks, "event-keys": secrets.event_key_set}
    if spec.database_role:
        files["database-url"] = _database_url(spec.database_role, passwords)
        files["event-signing-key"] = secrets.event_keys[spec.database_role]
    if reads_redis(spec):
        files["redis-url"] = f"redis://:{passwords['redis']}@redis:6379/0"
    if "provider" in spec.needs:
        files["payment-provider-api-key"] = secrets.provider_api_key
    if any(route.auth == "provider" for route in spec.routes):
        files["payment-webhook-secret"] = secrets.webhook_secret
    if spec.issues_tokens:
        files["jwt-private-key"] = secrets.jwt_private_key
    return files


def _others(secrets: Secrets, passwords: Files) -> dict[str, Files]:
    roles = {f"password-shop_{role}": passwords[role] for role in DATABASE_ROLES}
    administrator = f"postgresql://{ADMIN}:{passwords[ADMIN]}@postgres:5432/shop"
    return {
        "broker": {
            "database-url": _database_url(RELAY, passwords),
            "event-signing-key": secrets.event_keys[CLOCK],
            "event-keys": secrets.event_key_set,
        },
        "exporter": {"database-url": _database_url("ops", passwords)},
        "grafana": {"password": passwords["grafana"]},
        "migrate": {"database-url": administrator, **roles},
        "postgres": {"password": passwords[ADMIN]},
        "redis": {"redis.conf": REDIS_CONFIGURATION.format(password=passwords["redis"])},
        "sandbox": {
            "payment-provider-api-key": secrets.provider_api_key,
            "payment-webhook-secret": secrets.webhook_secret,
        },
        "tools": {
            "database-url": administrator,
            "payment-provider-api-key": secrets.provider_api_key,
            "payment-webhook-secret": secrets.webhook_secret,
        },
    }


def _database_url(role: str, passwords: Files) -> str:
    return f"postgresql://shop_{role}:{passwords[role]}@postgres:5432/shop"


def _write(folder: Path, files: Files) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.name not in files:  # of an earlier version
            path.unlink() if path.is_file() else shutil.rmtree(path)
    for name, text in files.items():
        path = folder / name
        if not path.is_file() or path.read_text("utf-8") != text:
            unfinished = folder / f".{name}"
            unfinished.write_text(text, encoding="utf-8")
            unfinished.chmod(READABLE)
            unfinished.rename(path)
