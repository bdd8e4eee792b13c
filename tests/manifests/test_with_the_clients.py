"""The comparison with what the clients make of our files can fail; the clients need Go."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any
from urllib.request import Request, urlopen

import pytest
import yaml

from tests.manifests import with_the_clients
from tests.manifests.with_the_clients import IMAGE, PACKAGES, TOOLS, Wrong
from tools.manifest_rules.__main__ import ROOT

STACK: dict[str, Any] = yaml.safe_load((ROOT / "stack.yml").read_text("utf-8"))["functions"]
NAME = "shop-place-order"


def as_deployed() -> dict[str, Any]:
    """What a gateway should be sent for one function."""
    wanted = STACK[NAME]
    return {
        "service": NAME,
        "image": IMAGE,
        "secrets": wanted["secrets"],
        "readOnlyRootFilesystem": True,
        "labels": wanted["labels"],
        "limits": {"memory": wanted["limits"]["memory"]},
        "envVars": wanted["environment"],
    }


def test_the_gateway_hears_what_it_is_sent() -> None:
    with with_the_clients._gateway() as (url, deployed):
        body = json.dumps(as_deployed()).encode()
        with urlopen(Request(f"{url}/system/functions", data=body, method="PUT")) as answer:
            assert answer.status == 202

    assert deployed == {NAME: as_deployed()}
    with_the_clients._compare(NAME, STACK[NAME], deployed[NAME])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image", "another"),
        ("secrets", []),
        ("readOnlyRootFilesystem", False),
        ("labels", {}),
        ("limits", {"memory": "1Gi"}),
        ("envVars", {}),
    ],
)
def test_what_was_lost_on_the_way_is_seen(key: str, value: Any) -> None:
    with pytest.raises(Wrong):
        with_the_clients._compare(NAME, STACK[NAME], deepcopy(as_deployed()) | {key: value})


def test_a_function_that_was_not_deployed_is_seen() -> None:
    with pytest.raises(Wrong, match="not deployed"):
        with_the_clients._compare(NAME, STACK[NAME], None)


@pytest.mark.parametrize("client", PACKAGES)
def test_every_client_is_pinned_with_its_hashes(client: str) -> None:
    module = (TOOLS / client / "go.mod").read_text("utf-8")
    package = PACKAGES[client]

    required = [line.split() for line in module.splitlines() if line.startswith("require ")]
    ((_, name, version),) = [words for words in required if len(words) == 3]
    assert package.startswith(name)
    assert f"{name} {version} h1:" in (TOOLS / client / "go.sum").read_text("utf-8")


def test_what_a_client_adds_is_no_loss_and_what_it_drops_is() -> None:
    wanted = {"containers": [{"args": ["sweep"], "ports": [{"containerPort": 8080}]}]}
    more = {"containers": [{"args": ["sweep"], "ports": [{"containerPort": 8080}], "name": ""}]}
    less = {"containers": [{"args": ["sweep"], "ports": []}]}

    assert list(with_the_clients._lost(wanted, more, "spec")) == []
    assert list(with_the_clients._lost(wanted, less, "spec")) == ["spec.containers[0].ports"]
