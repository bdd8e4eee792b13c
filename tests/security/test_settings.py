"""Settings: where they are read from, all mistakes reported at once, and no secret shown."""

from __future__ import annotations

import io
import json
import pickle
import re
import subprocess
import traceback
from contextlib import redirect_stdout
from copy import copy
from pathlib import Path

import pytest

from shop.registry import all_specs
from shop.runtime import config, log
from shop.runtime.bootstrap import needs_of
from shop.runtime.config import ConfigurationError, Secret, Settings, load

SECRET = "postgresql://shop:correct-horse@db/shop"
LOCAL = {"SHOP_PROFILE": "local"}


def mistakes(environment: dict[str, str], *needs: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(environment, needs=needs)
    return str(caught.value).splitlines()


def test_setting_is_read_from_variable_file_or_secrets_folder(tmp_path: Path) -> None:
    (tmp_path / "database-url").write_text("from the folder\n")
    (tmp_path / "url").write_text("from the file\r\n")
    in_folder = LOCAL | {"SHOP_SECRETS_DIR": str(tmp_path)}
    named = in_folder | {"DATABASE_URL_FILE": str(tmp_path / "url")}
    given = named | {"DATABASE_URL": "from the variable"}

    found = [load(e).database_url.reveal() for e in (in_folder, named, given)]

    assert found == ["from the folder", "from the file", "from the variable"]


def test_openfaas_and_shop_secret_folders_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert config.SECRET_FOLDERS == ("/var/openfaas/secrets", "/var/run/shop/secrets")
    (tmp_path / "payment-webhook-secret").write_text("whsec")
    monkeypatch.setattr(config, "SECRET_FOLDERS", (str(tmp_path / "none"), str(tmp_path)))

    assert load(LOCAL).payment_webhook_secret.reveal() == "whsec"


def test_k_sink_is_the_broker_unless_broker_url_is_set() -> None:
    assert load(LOCAL | {"K_SINK": "http://sink"}).broker_url == "http://sink"
    both = LOCAL | {"K_SINK": "http://sink", "BROKER_URL": "http://broker"}
    assert load(both).broker_url == "http://broker"


def test_error_names_every_mistake_and_no_value(tmp_path: Path) -> None:
    (tmp_path / "jwt-jwks").write_bytes(b"\xff\xfe secret bytes")
    (tmp_path / "event-keys").mkdir()
    found = mistakes(
        {
            "SHOP_PROFILE": "production-hunter2",
            "PAYMENT_PROVIDER": "paypal-hunter2",
            "SETTLEMENTS_AUTH": "everybody-hunter2",
            "RATE_LIMIT_PER_MINUTE": "hunter2",
            "TRUSTED_HOPS": "-1",
            "IDEMPOTENCY_KEY_REQUIRED": "hunter2",
            "PAYMENT_PROVIDER_TIMEOUT_SECONDS": "nan",
            "CURRENCY": "won",
            "REDIS_URL_FILE": str(tmp_path / "missing"),
            "EVENT_KEYS_FILE": str(tmp_path / "event-keys"),
            "SHOP_SECRETS_DIR": str(tmp_path),
        },
        "postgres",
        "webhook",
    )

    assert {line.split()[0].removeprefix(f"{tmp_path}/") for line in found} == {
        "SHOP_PROFILE", "PAYMENT_PROVIDER", "SETTLEMENTS_AUTH", "RATE_LIMIT_PER_MINUTE",
        "TRUSTED_HOPS", "IDEMPOTENCY_KEY_REQUIRED", "PAYMENT_PROVIDER_TIMEOUT_SECONDS",
        "CURRENCY", "REDIS_URL_FILE", "EVENT_KEYS_FILE", "jwt-jwks", "DATABASE_URL",
        "PAYMENT_WEBHOOK_SECRET",
    }  # fmt: skip
    assert "hunter2" not in "\n".join(found)


@pytest.mark.parametrize("text", ["Local", "PROD", "dev", "local ", "default"])
def test_unknown_profile_is_an_error(text: str) -> None:
    assert mistakes({"SHOP_PROFILE": text}) == ["SHOP_PROFILE must be one of local, prod"]


def test_default_profile_is_prod() -> None:
    assert load({}).profile == "prod"


PROD = {
    "DATABASE_URL": SECRET,
    "BROKER_URL": "https://broker",
    "JWT_PRIVATE_KEY": "key",
    "JWT_JWKS": '{"keys":[]}',
    "JWT_ISSUER": "https://shop.example",
    "JWT_AUDIENCE": "shop-prod",
    "EVENT_SIGNING_KEY": "key",
    "EVENT_KEYS": "{}",
    "PAYMENT_PROVIDER": "stripe",
    "PAYMENT_PROVIDER_URL": "https://api.stripe.com",
    "PAYMENT_PROVIDER_API_KEY": "sk",
    "PAYMENT_WEBHOOK_SECRET": "whsec",
}
NEEDS = tuple(config.WHERE_NEEDED)


def test_prod_accepts_a_complete_configuration() -> None:
    assert load(PROD, needs=NEEDS).profile == "prod"


@pytest.mark.parametrize("name", PROD)
def test_prod_requires(name: str) -> None:
    (mistake,) = mistakes({k: v for k, v in PROD.items() if k != name}, *NEEDS)

    assert mistake.startswith(name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PAYMENT_PROVIDER", "sandbox"),
        ("SETTLEMENTS_AUTH", "public"),
        ("COMMON_PASSWORDS_ALLOWED", "true"),
    ],
)
def test_prod_rejects_local_values(name: str, value: str) -> None:
    (mistake,) = mistakes(PROD | {name: value}, *NEEDS)

    assert mistake.startswith(name) and "prod" in mistake


def test_no_function_starts_in_prod_without_settings() -> None:
    for spec in all_specs():
        if spec.database_role is None:
            assert load({}, needs=needs_of((spec,))).profile == "prod"
            continue
        assert "DATABASE_URL is missing" in mistakes({}, *needs_of((spec,))), spec.name


def test_no_setting_has_a_default_secret() -> None:
    settings = Settings()

    assert {n for n, v in vars(settings).items() if isinstance(v, Secret) and len(v)} == set()


def test_secret_is_masked_in_every_representation() -> None:
    secret, settings = Secret(SECRET), Settings(database_url=Secret(SECRET))
    shown = [
        repr(secret),
        str(secret),
        f"{secret} {secret!r} {secret:>50}",
        "%s" % secret,  # noqa: UP031
        "{}".format(secret),  # noqa: UP032
        repr(settings),
        str(settings),
        str(vars(settings)),
        str([secret]),
        json.dumps({"a": secret}, default=str),
        repr(copy(settings)),
    ]
    output = io.StringIO()
    with redirect_stdout(output):
        log.write("x", secret=secret, settings=settings)
        try:
            raise ValueError(settings, secret)
        except ValueError as error:
            log.bug(error)
            shown.append("".join(traceback.format_exception(error)))

    for text in [*shown, output.getvalue()]:
        assert "correct-horse" not in text
        assert "***" in text
    assert secret.reveal() == SECRET


def test_secret_is_not_a_string() -> None:
    secret = Secret(SECRET)

    assert not isinstance(secret, str)
    with pytest.raises(TypeError):
        json.dumps({"a": secret})
    with pytest.raises(TypeError):
        "".join([secret])  # type: ignore[list-item]
    with pytest.raises(TypeError):
        "x" + secret  # type: ignore[operator]
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    assert (len(secret), bool(Secret("")), secret == Secret(SECRET)) == (len(SECRET), False, True)


ROOT = Path(__file__).resolve().parents[2]


def test_no_secret_has_a_default_in_code_or_in_a_tracked_file() -> None:
    """No secret has a default, in code or in a tracked file."""
    assert all(len(v) == 0 for v in vars(Settings()).values() if isinstance(v, Secret))
    listed = subprocess.run(
        [
            "git",
            "ls-files",
            "shop",
            "functions",
            "events",
            "infra",
            "helm",
            "stack.yml",
            "tools",
            "scripts",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert len(listed) > 50
    private = re.compile(
        rb"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----\s+[A-Za-z0-9+/=]{40}|sk_live_\w{8}"
    )
    assert [f for f in listed if private.search((ROOT / f).read_bytes())] == []
