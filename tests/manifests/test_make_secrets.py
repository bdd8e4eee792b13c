"""make_secrets: each function starts with the secrets that are created for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from shop.adapters.signatures import verifier_from_json
from shop.registry import all_specs
from shop.runtime import config
from shop.runtime.bootstrap import needs_of
from tools.make_secrets import main
from tools.manifest_rules.__main__ import ROOT
from tools.render.network_policies import SETTING_VALUES
from tools.render.objects import secrets_of

Printed = dict[tuple[str, str], dict[str, Any]]


def printed(keys: Path, capsys: pytest.CaptureFixture[str], *options: str) -> Printed:
    """The printed objects, by kind and name."""
    assert main([f"--keys={keys}", *options]) == 0
    documents = yaml.safe_load_all(capsys.readouterr().out)
    return {(d["kind"], d["metadata"]["name"]): d for d in documents}


@pytest.mark.parametrize("spec", all_specs(), ids=lambda spec: spec.name)
def test_function_starts_in_prod_with_its_own_secrets_only(
    spec: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = printed(tmp_path / "keys", capsys, "--provider=https://api.stripe.com")
    folder = tmp_path / "mounted"
    folder.mkdir()
    for name in secrets_of(spec):
        for key, value in made["Secret", name]["stringData"].items():
            (folder / key).write_text(value)
    environment = SETTING_VALUES | {"JWT_ISSUER": "https://shop.co.kr"}
    environment |= made["ConfigMap", "shop-public-keys"]["data"]

    settings = config.load(
        {**environment, "SHOP_SECRETS_DIR": str(folder)}, needs=needs_of((spec,))
    )

    assert settings.profile == "prod"
    assert bool(len(settings.jwt_private_key)) == spec.issues_tokens
    if spec.database_role:
        assert f"//shop_{spec.database_role}:" in settings.database_url.reveal()


def test_chart_lists_every_secret_with_its_keys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = yaml.safe_load((ROOT / "helm/msa-shop/values.yaml").read_text("utf-8"))

    made = printed(tmp_path, capsys)

    assert {
        name: sorted(manifest["stringData"])
        for (kind, name), manifest in made.items()
        if kind == "Secret"
    } == values["secrets"]["names"] | {"shop-grafana": ["admin-password"]}


def test_auditor_connects_past_the_pooler_which_also_knows_its_password(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = printed(tmp_path, capsys)

    url = made["Secret", "shop-auditor"]["stringData"]["database-url"]
    password = made["Secret", "shop-role-passwords"]["stringData"]["password-shop_auditor"]
    users = made["Secret", "shop-pgbouncer"]["stringData"]["userlist.txt"]
    assert url == f"postgresql://shop_auditor:{password}@shop-postgresql:5432/shop"
    assert f'"shop_auditor" "{password}"' in users


def test_second_run_prints_the_same_and_keys_are_private(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = printed(tmp_path / "keys", capsys)

    again = printed(tmp_path / "keys", capsys)

    assert again == first
    modes = {path.stat().st_mode & 0o077 for path in (tmp_path / "keys").iterdir()}
    assert modes == {0}


def test_public_keys_match_the_private_keys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = printed(tmp_path, capsys, "--database=db.example.com:5432", "--namespace=other")

    public = made["ConfigMap", "shop-public-keys"]

    keys = json.loads(public["data"]["EVENT_KEYS"])
    assert verifier_from_json(public["data"]["EVENT_KEYS"])
    assert keys["clock"]["sources"] == ["/shop/clock"]
    assert public["metadata"]["namespace"] == "other"
    connection = made["Secret", "shop-keda"]["stringData"]["connection"]
    assert connection.endswith("@db.example.com:5432/shop?sslmode=verify-full&sslrootcert=system")
