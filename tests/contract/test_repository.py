"""Repository metadata: one version, typed packages, existing paths, marked generated files."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from typing import Any

import pytest
import yaml
from trove_classifiers import classifiers

from tools.render.__main__ import ROOT, render_all

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def test_chart_and_changelog_have_the_version_of_the_project() -> None:
    version = PROJECT["project"]["version"]
    chart = yaml.safe_load((ROOT / "helm/msa-shop/Chart.yaml").read_text("utf-8"))
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    released = re.findall(r"^## \[(\d[^]]*)\]", changelog, re.MULTILINE)

    assert (chart["version"], chart["appVersion"]) == (version, version)
    assert released[0] == version


def test_api_documents_have_the_version_of_the_project() -> None:
    version = PROJECT["project"]["version"]
    texts = {p: t for p, t in render_all().items() if re.match(r"(?:open|async)api", p.name)}
    documents = {path: json.loads(t) for path, t in texts.items() if path.suffix == ".json"}

    shown = {document["info"]["version"] for document in documents.values()}

    assert len(documents) > 2
    assert shown == {version}


def test_classifiers_are_known() -> None:
    assert set(PROJECT["project"]["classifiers"]) <= set(classifiers)


def test_every_package_of_the_wheel_is_marked_as_typed() -> None:
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]

    assert [name for name in packages if not (ROOT / name / "py.typed").is_file()] == []


def test_every_path_of_codeowners_exists() -> None:
    lines = (ROOT / ".github/CODEOWNERS").read_text("utf-8").splitlines()
    paths = [line.split()[0] for line in lines if line.startswith("/")]

    assert paths
    assert [path for path in paths if not (ROOT / path.lstrip("/")).exists()] == []


def test_every_directory_of_dependabot_exists() -> None:
    updates = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text("utf-8"))["updates"]
    folders = [
        folder
        for update in updates
        for folder in update.get("directories", [update.get("directory")])
    ]

    assert [folder for folder in folders if not list(ROOT.glob(folder.strip("/") or "*"))] == []


def test_every_rendered_file_is_marked_as_generated() -> None:
    paths = [str(path) for path in render_all()]

    result = subprocess.run(
        ["git", "check-attr", "--stdin", "-z", "linguist-generated"],
        input="\0".join(paths),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    fields = result.stdout.split("\0")
    unmarked = [
        path for path, value in zip(fields[::3], fields[2::3], strict=False) if value != "set"
    ]

    assert unmarked == []


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "LICENSE"])
def test_repository_document_is_not_empty(name: str) -> None:
    assert (ROOT / name).read_text("utf-8").strip()
