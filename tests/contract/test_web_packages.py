"""The packages of ``web/`` are locked by digest, without addresses; types are those of the API.

``tests/contract/test_render.py`` checks that the types are rendered.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tools import web
from tools.render import typescript

ROOT = Path(__file__).resolve().parents[2]
WEB = ROOT / "web"
LOCK: dict[str, dict[str, Any]] = json.loads((WEB / "package-lock.json").read_text())["packages"]
PACKAGES = {name: package for name, package in LOCK.items() if name}


def test_lock_has_the_digest_of_each_package_and_no_address() -> None:
    assert len(PACKAGES) > 20
    assert [name for name, package in PACKAGES.items() if "integrity" not in package] == []
    assert [name for name, package in PACKAGES.items() if "resolved" in package] == []
    assert "://" not in "".join(
        json.dumps({key: value for key, value in package.items() if key != "funding"})
        for package in PACKAGES.values()
    )


def test_direct_packages_have_one_exact_version() -> None:
    declared = json.loads((WEB / "package.json").read_text())
    assert declared.keys() & {"dependencies", "optionalDependencies"} == set()
    for name, version in declared["devDependencies"].items():
        assert LOCK[f"node_modules/{name}"]["version"] == version


def test_npm_runs_no_script_of_a_package() -> None:
    settings = (WEB / ".npmrc").read_text().splitlines()
    assert {"ignore-scripts=true", "omit-lockfile-registry-resolved=true"} <= {*settings}


def test_changed_source_changes_the_digest_of_the_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "web" / "src").mkdir(parents=True)
    monkeypatch.setattr(web, "ROOT", tmp_path)
    monkeypatch.setattr(web, "WEB", tmp_path / "web")
    digests: list[str] = []
    for text in ("a", "b", "a"):
        (tmp_path / "web" / "src" / "main.tsx").write_text(text)
        digests.append(web.digest_of(web.sources()))
    assert digests[0] == digests[2] != digests[1]


def test_second_build_does_nothing() -> None:
    web.build()
    before = os.stat(web.PAGES / "storefront.html").st_mtime_ns
    assert web.build() is False
    assert os.stat(web.PAGES / "storefront.html").st_mtime_ns == before


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "array", "items": {"$ref": "#/components/schemas/Order"}}, "Order[]"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "number | null"),
        ({"type": "array", "items": {"enum": ["A", "B"]}}, '("A" | "B")[]'),
        ({"type": "object", "additionalProperties": {"type": "string"}}, "Record<string, string>"),
        ({"const": "Bearer"}, '"Bearer"'),
        (
            {"type": "object", "properties": {"a": {"type": "string"}}, "required": []},
            "{\n  a?: string;\n}",
        ),
    ],
)
def test_schema_has_typescript_type(schema: dict[str, Any], expected: str) -> None:
    assert typescript.type_of(schema) == expected


def test_schema_without_typescript_type_is_an_error() -> None:
    with pytest.raises(ValueError, match="no TypeScript type"):
        typescript.type_of({"allOf": [{"type": "string"}]})
