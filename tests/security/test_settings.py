"""Settings: where they are read from, all mistakes reported at once, and no secret shown."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import subprocess
import sys
import traceback
from contextlib import redirect_stdout
from copy import copy
from pathlib import Path

import pytest

from shop.adapters.ed25519 import load_private_key
from shop.adapters.tokens import public_jwk
from shop.registry import all_specs, spec_of
from shop.runtime import config, log
from shop.runtime.bootstrap import needs_of
from shop.runtime.config import ConfigurationError, Secret, Settings, load
from tools.local_platform.secrets import new_key

SECRET = "postgresql://shop:correct-horse@db/shop"
LOCAL = {"SHOP_PROFILE": "local"}
ROOT = Path(__file__).resolve().parents[2]


def mistakes(environment: dict[str, str], *needs: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(environment, needs=needs)
    return str(caught.value).splitlines()


def test_setting_is_read_from_variable_file_or_secrets_folder(tmp_path: Path) -> None:
    (tmp_path / "database-url").write_text("postgresql://folder/shop\n")
    (tmp_path / "url").write_text("postgresql://file/shop\r\n")
    in_folder = LOCAL | {"SHOP_SECRETS_DIR": str(tmp_path)}
    named = in_folder | {"DATABASE_URL_FILE": str(tmp_path / "url")}
    given = named | {"DATABASE_URL": "postgresql://variable/shop"}

    found = [load(e).database_url.reveal() for e in (in_folder, named, given)]

    assert found == [f"postgresql://{name}/shop" for name in ("folder", "file", "variable")]


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
            "BUSINESS_TIME_ZONE": "Hunter2/Seoul",
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
        "CURRENCY", "BUSINESS_TIME_ZONE", "REDIS_URL_FILE", "EVENT_KEYS_FILE", "jwt-jwks",
        "DATABASE_URL", "PAYMENT_WEBHOOK_SECRET",
    }  # fmt: skip
    assert "hunter2" not in "\n".join(found).lower()


@pytest.mark.parametrize("text", ["Local", "PROD", "dev", "local ", "default"])
def test_unknown_profile_is_an_error(text: str) -> None:
    assert mistakes({"SHOP_PROFILE": text}) == ["SHOP_PROFILE must be one of local, prod"]


def test_default_profile_is_prod() -> None:
    assert load({}).profile == "prod"


EVENT_KEY, TOKEN_KEY, OTHER_KEY = new_key(), new_key(), new_key()
SOURCE = "/shop/charge"


def public_of(pem: str) -> dict[str, str]:
    return public_jwk(load_private_key(pem).public_key().public_bytes_raw())


def event_keys(pem: str, *sources: str) -> str:
    return json.dumps({"payment": {"x": public_of(pem)["x"], "sources": sources}})


CARRIER_SECRET = "whsec_" + "a" * 32
PROD = {
    "DATABASE_URL": SECRET,
    "BROKER_URL": "https://broker",
    "JWT_PRIVATE_KEY": TOKEN_KEY,
    "JWT_JWKS": json.dumps({"keys": [public_of(TOKEN_KEY)]}),
    "JWT_ISSUER": "https://shop.co.kr",
    "JWT_AUDIENCE": "shop-prod",
    "LINK_KEY": "k" * 32,
    "SMTP_URL": "smtps://shop:secret@mail.shop.co.kr:465",
    "SECOND_FACTOR_KEY": "s" * 32,
    "WEBHOOK_KEY": "w" * 32,
    "EVENT_SIGNING_KEY": EVENT_KEY,
    "EVENT_KEYS": event_keys(EVENT_KEY, SOURCE),
    "PAYMENT_PROVIDER": "stripe",
    "PAYMENT_PROVIDER_URL": "https://api.stripe.com",
    "PAYMENT_PROVIDER_API_KEY": "sk",
    "PAYMENT_WEBHOOK_SECRET": "whsec",
    "CARRIER_WEBHOOK_SECRET": CARRIER_SECRET,
}
NEEDS = tuple(config.WHERE_NEEDED)


def test_prod_accepts_a_complete_configuration() -> None:
    assert load(PROD, needs=NEEDS, sources=(SOURCE,)).profile == "prod"


@pytest.mark.parametrize("name", PROD)
def test_prod_requires(name: str) -> None:
    (mistake,) = mistakes({k: v for k, v in PROD.items() if k != name}, *NEEDS)

    assert mistake.startswith(name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PAYMENT_PROVIDER", "sandbox"),
        ("PAYMENT_PROVIDER_URL", "http://api.stripe.com"),
        ("SETTLEMENTS_AUTH", "public"),
        ("SETTLEMENTS_AUTH", "customer"),
        ("COMMON_PASSWORDS_ALLOWED", "true"),
        ("DATABASE_URL", "postgresql://shop:x@db.kr.example:5432/shop"),
        ("DATABASE_URL", "postgresql://shop:x@db,10.0.0.7:5432/shop?sslmode=require"),
        ("REDIS_URL", "redis://:x@cache.kr.example:6379/0"),
        ("RATE_LIMIT_PER_MINUTE", "0"),
        ("SHOP_CRASH", "charge:W7:1"),
        ("SMTP_URL", "smtp://mail.shop.co.kr"),
        ("MAIL_FROM", "shop@shop.local"),
        ("SHOP_URL", "http://shop.co.kr"),
        ("SHOP_URL", "https://shop.example.com"),
        ("JWT_ISSUER", "https://shop.local"),
        ("JWT_ISSUER", "https://shop.example.com"),
        ("JWT_ISSUER", "https://SHOP.EXAMPLE"),
        ("JWT_ISSUER", "http://localhost:8080"),
        ("JWT_ISSUER", "shop.test"),
    ],
)
def test_prod_rejects_local_values(name: str, value: str) -> None:
    (mistake,) = mistakes(PROD | {name: value}, *NEEDS)

    assert mistake.startswith(name) and "prod" in mistake


def test_prod_accepts_verified_tls_to_another_network() -> None:
    urls = {
        "DATABASE_URL": "postgresql://s:x@db.co.kr/shop?sslmode=verify-full&sslrootcert=system",
        "REDIS_URL": "rediss://:x@cache.kr.example:6379/0",
    }

    assert load(PROD | urls, needs=NEEDS).redis_url.reveal() == urls["REDIS_URL"]


def test_simulator_webhooks_are_rejected_in_prod() -> None:
    needs = needs_of((spec_of("payment_webhook"),))
    (mistake,) = mistakes({k: v for k, v in PROD.items() if k != "PAYMENT_PROVIDER"}, *needs)

    assert mistake == "PAYMENT_PROVIDER must not be sandbox in the prod profile"


WRONG = [
    ("DATABASE_URL", "localhost:5432"),
    ("DATABASE_URL", "mysql://db/shop"),
    ("DATABASE_URL", "postgresql://db:port/shop"),
    ("REDIS_URL", "redis"),
    ("REDIS_URL", "http://cache:6379"),
    ("REDIS_URL", "redis://cache:sixthousand/0"),
    ("REDIS_URL", "redis://cache:6379/first"),
    ("BROKER_URL", "broker.shop.svc"),
    ("BROKER_URL", "ftp://broker"),
    ("BROKER_URL", "http://broker:99999"),
    ("BROKER_CLASS", "inmemory"),
    ("BROKER_TOKEN_PATH", "run/token"),
    ("BROKER_TOKEN_PATH", "/run/my token"),
    ("JWT_JWKS", "garbage"),
    ("JWT_JWKS", '{"keys":[]}'),
    ("JWT_JWKS", '{"keys":[{"kty":"RSA"}]}'),
    ("JWT_JWKS", "[" * 100_000),
    ("JWT_ISSUER", "https://shop.co.kr "),
    ("JWT_AUDIENCE", "the shop"),
    ("JWT_PRIVATE_KEY", "garbage"),
    ("JWT_PRIVATE_KEY", OTHER_KEY),
    ("LINK_KEY", "k" * 31),
    ("LINK_KEY", "k" * 31 + " "),
    ("SECOND_FACTOR_KEY", "k" * 31),
    ("SECOND_FACTOR_KEY", f"{'k' * 32} {'k' * 32}"),
    ("SECOND_FACTOR_KEY", f"{'k' * 32} short"),
    ("SHOP_LANGUAGE", "fr"),
    ("SECOND_FACTOR_ROLES", "customer"),
    ("SECOND_FACTOR_ROLES", "finance;admin"),
    ("SMTP_URL", "mail.shop.co.kr"),
    ("SMTP_URL", "https://mail.shop.co.kr"),
    ("SMTP_URL", "smtps://user@mail.shop.co.kr"),
    ("SMTP_URL", "smtps://mail.shop.co.kr/path"),
    ("MAIL_FROM", "the shop"),
    ("MAIL_FROM", "shop@shop.co.kr\r\nBcc: other@shop.co.kr"),
    ("SHOP_NAME", "Shop\r\nBcc: other@shop.co.kr"),
    ("SHOP_URL", "shop.co.kr"),
    ("EVENT_KEYS", "garbage"),
    ("EVENT_KEYS", "{}"),
    ("EVENT_KEYS", '{"payment":{"x":"AA","sources":["/shop/charge"]}}'),
    ("EVENT_SIGNING_KEY", "garbage"),
    ("EVENT_SIGNING_KEY", OTHER_KEY),
    ("PAYMENT_PROVIDER_URL", "api.stripe.com"),
    ("PAYMENT_PROVIDER_API_KEY", "sk live"),
    ("PAYMENT_WEBHOOK_SECRET", "whsec\x00"),
    ("CARRIER_WEBHOOK_SECRET", "a" * 40),
    ("CARRIER_WEBHOOK_SECRET", "whsec_" + "a" * 28),
    ("CARRIER_WEBHOOK_SECRET", "whsec_" + "?" * 32),
    ("CARRIER_WEBHOOK_SECRET", f"{CARRIER_SECRET} {CARRIER_SECRET}"),
    ("BUSINESS_TIME_ZONE", "Asia/Soul"),
    ("BUSINESS_TIME_ZONE", "Asia"),
    ("BUSINESS_TIME_ZONE", "../../etc/passwd"),
    ("CURRENCY", "krw"),
    ("PORT", "http"),
    ("PORT", "0"),
    ("PORT", "65536"),
    ("METRICS_PORT", "8080"),
    ("METRICS_PORT", "70000"),
    ("THREADS", "1_0"),
    ("THREADS", "99999"),
    ("TRUSTED_HOPS", "\uff11"),
    ("TRUSTED_HOPS", "99"),
    ("OPEN_ORDERS_MAX", "9" * 5_000),
    ("ORDER_SOFT_EXPIRY_SECONDS", "0"),
    ("ORDER_SOFT_EXPIRY_SECONDS", "7200"),
    ("ORDER_HARD_EXPIRY_SECONDS", "0"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
]


def test_address_of_a_channel_based_broker_requires_its_class() -> None:
    """Any other class would end requests that deliver events."""
    address = "http://broker-ingress.knative-eventing.svc.cluster.local/shop/shop"
    wrong = PROD | {"BROKER_URL": address, "BROKER_CLASS": "kafka"}

    assert mistakes(wrong, *NEEDS) == [
        "BROKER_CLASS is not imc, but BROKER_URL is that of a channel-based broker"
    ]
    assert load(wrong | {"BROKER_CLASS": "imc"}, needs=NEEDS).broker_class == "imc"


@pytest.mark.parametrize(("name", "value"), WRONG, ids=lambda text: text[:40])
def test_wrong_setting_is_one_line_that_begins_with_its_name(name: str, value: str) -> None:
    found = mistakes(PROD | {name: value}, *NEEDS)

    assert [line.split()[0] for line in found if line.startswith(name)] == [name]
    assert value not in "".join(found) or len(value) <= len("redis")
    assert len(found) == 1 + (name == "ORDER_HARD_EXPIRY_SECONDS")


def test_signing_key_of_another_domain_is_rejected_before_the_first_event() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(PROD, needs=NEEDS, sources=("/shop/place_order",))

    assert str(caught.value) == (
        "EVENT_SIGNING_KEY cannot be used: "
        "EVENT_KEYS does not allow 'payment' to sign for /shop/place_order"
    )


def test_database_address_may_name_several_hosts_or_a_unix_socket() -> None:
    for url in (
        "postgresql://shop:p%40ss@a:5432,b:5433/shop?target_session_attrs=read-write",
        "postgres://shop@[::1]/shop?sslmode=verify-full",
        "postgresql://shop@/shop?host=%2Frun%2Fpostgresql",
    ):
        assert load(LOCAL | {"DATABASE_URL": url}).database_url.reveal() == url


def run(*command: str, **environment: str) -> tuple[int, str]:
    """Exit status and standard error of a process that must end on its own."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("name", [spec.name for spec in all_specs()])
def test_function_with_wrong_settings_ends_with_status_2_and_one_line_each(name: str) -> None:
    needs = needs_of((spec_of(name),))
    wrong = {"PORT": "x", "BUSINESS_TIME_ZONE": "Mars/Base", "REDIS_URL": "x"}
    wrong |= {"EVENT_KEYS": "x"} if {"events", "announces"} & set(needs) else {}
    wrong |= {"JWT_JWKS": "x"} if {"tokens", "issues_tokens"} & set(needs) else {}
    right = {k: v for k, v in PROD.items() if k not in wrong}

    status, error = run("shop.runtime", name, **right, **wrong)

    first, *lines = error.splitlines()
    assert (status, first) == (2, "the settings are wrong:")
    assert [line.split()[0] for line in lines] == sorted(wrong)


BAD_ZONE = {"BUSINESS_TIME_ZONE": "Mars/Base"}
DATABASE = {"DATABASE_URL": "postgresql://db.invalid/shop"}


@pytest.mark.parametrize(
    ("command", "environment"),
    [
        ("tools.cli migrate", {"SHOP_PROFILE": "local", **DATABASE, **BAD_ZONE}),
        ("tools.cli migrate", {"DATABASE_URL": "garbage"}),
        ("tools.cli broker", {"SHOP_PROFILE": "local", **DATABASE, "EVENT_KEYS": "garbage"}),
        ("tools.cli dev --data /nonexistent", BAD_ZONE),
        ("tools.cli reconcile --date 2026-01-02", {**DATABASE, **BAD_ZONE}),
        ("tools.cli order explain 1", {**DATABASE, **BAD_ZONE}),
        ("tools.cli e2e --time-zone Mars/Base", {}),
        ("tools.cli check", {"DATABASE_URL": "garbage"}),
        ("tools.exporter", {"DATABASE_URL": "garbage"}),
        ("tools.tick t http://f/events", {"EVENT_KEYS": "garbage", "EVENT_SIGNING_KEY": "x"}),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_tool_with_a_wrong_setting_ends_with_status_2_and_no_traceback(
    command: str, environment: dict[str, str]
) -> None:
    status, error = run(*command.split(), **environment)

    assert status == 2
    assert "Traceback" not in error
    assert any(name in error for name in (*environment, "--time-zone", "missing")), error


def test_simulator_with_an_unreadable_secret_file_names_the_variable() -> None:
    status, error = run("tools.payment_simulator", PAYMENT_PROVIDER_API_KEY_FILE="/nonexistent/key")

    assert status == 1
    assert error == "PAYMENT_PROVIDER_API_KEY_FILE cannot be read, or is not text in UTF-8\n"


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
            log.unexpected(error)
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
