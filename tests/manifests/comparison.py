"""Compares objects that were sent to an API server with what it stores."""

from __future__ import annotations

import re
from decimal import Decimal

from tests.manifests.api_server import ApiServer
from tests.manifests.check_with_clients import lost_values
from tools.manifest_rules.manifests import Manifest, describe
from tools.render.documents import Json

QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(m|k|M|G|Ki|Mi|Gi)?")
FACTORS = {
    None: Decimal(1),
    "m": Decimal("0.001"),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
}


def differences(server: ApiServer, manifest: Manifest) -> list[str]:
    """What of the object is not stored; raises ``Rejected`` when nothing is."""
    wanted, kept = comparable(manifest), comparable(server.stored(manifest))
    return [f"{describe(manifest)}: {path} is not stored" for path in lost_values(wanted, kept, "")]


def comparable(value: Json) -> Json:
    """The value without empty fields, which may be left out, and with quantities as numbers."""
    if isinstance(value, dict):
        compared = {key: comparable(each) for key, each in value.items()}
        return {key: each for key, each in compared.items() if each not in (None, "", {}, [])}
    if isinstance(value, list):
        return [comparable(each) for each in value]
    found = QUANTITY.fullmatch(value) if isinstance(value, str) else None
    return str((Decimal(found[1]) * FACTORS[found[2]]).normalize()) if found else value


def contents(stored: Manifest) -> Manifest:
    """What a stored object says, without what the server or a controller writes."""
    metadata = {key: stored["metadata"].get(key) for key in ("name", "labels", "annotations")}
    others = {key: each for key, each in stored.items() if key not in ("metadata", "status")}
    return {"metadata": metadata, **others}
