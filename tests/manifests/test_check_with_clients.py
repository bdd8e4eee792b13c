"""The comparisons of check_with_clients detect differences; the clients themselves need Go."""

# Tests the comparisons without their clients, which need Go.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any
from urllib.request import Request, urlopen

import pytest
import yaml

from tests.manifests import check_with_clients
from tests.manifests.check_with_clients import (
    IMAGE,
    PACKAGES,
    SETTINGS,
    TOOLS,
    ClientMismatchError,
)
from tools.manifest_rules.__main__ import ROOT
from tools.render.documents import Json

STACK: dict[str, Any] = yaml.safe_load((ROOT / "stack.yml").read_text("utf-8"))["functions"]
NAME = "shop-place-order"


def deployed_function() -> dict[str, Any]:
    """The request body that deploys one function."""
    wanted = STACK[NAME]
    return {
        "service": NAME,
        "image": IMAGE,
        "secrets": wanted["secrets"],
        "readOnlyRootFilesystem": True,
        "labels": wanted["labels"],
        "limits": {"memory": wanted["limits"]["memory"]},
        "envVars": wanted["environment"] | SETTINGS,
    }


def test_gateway_records_deployed_functions() -> None:
    with check_with_clients._gateway() as (url, deployed):
        body = json.dumps(deployed_function()).encode()
        with urlopen(Request(f"{url}/system/functions", data=body, method="PUT")) as response:
            assert response.status == 202

    assert deployed == {NAME: deployed_function()}
    check_with_clients._compare(NAME, STACK[NAME], deployed[NAME])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image", "another"),
        ("secrets", []),
        ("readOnlyRootFilesystem", False),
        ("labels", {}),
        ("limits", {"memory": "1Gi"}),
        ("envVars", {}),
        ("envVars", STACK[NAME]["environment"]),
    ],
)
def test_changed_value_of_a_deployed_function_is_reported(key: str, value: Any) -> None:
    with pytest.raises(ClientMismatchError):
        check_with_clients._compare(NAME, STACK[NAME], deepcopy(deployed_function()) | {key: value})


def test_missing_function_is_reported() -> None:
    with pytest.raises(ClientMismatchError, match="not deployed"):
        check_with_clients._compare(NAME, STACK[NAME], None)


@pytest.mark.parametrize("client", PACKAGES)
def test_client_is_pinned_with_its_hash(client: str) -> None:
    module = (TOOLS / client / "go.mod").read_text("utf-8")
    package = PACKAGES[client]

    required = [line.split() for line in module.splitlines() if line.startswith("require ")]
    ((_, name, version),) = [words for words in required if len(words) == 3]
    assert package.startswith(name)
    assert f"{name} {version} h1:" in (TOOLS / client / "go.sum").read_text("utf-8")


def test_removed_value_is_a_loss_and_added_value_is_not() -> None:
    wanted: Json = {"containers": [{"args": ["sweep"], "ports": [{"containerPort": 8080}]}]}
    more: Json = {
        "containers": [{"args": ["sweep"], "ports": [{"containerPort": 8080}], "name": ""}]
    }
    less: Json = {"containers": [{"args": ["sweep"], "ports": []}]}

    assert list(check_with_clients.lost_values(wanted, more, "spec")) == []
    assert list(check_with_clients.lost_values(wanted, less, "spec")) == [
        "spec.containers[0].ports"
    ]
