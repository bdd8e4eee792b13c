"""Documents name only what exists: links, paths, modules, make targets and commands."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from shop.primitives.failpoints import Failpoint
from tools.checker.invariants import INVARIANTS
from tools.cli import app
from tools.e2e.run import GROUPS
from tools.local_platform.function_environment import SHOP_VARIABLES

ROOT = Path(__file__).resolve().parents[2]
TRACKED = tuple(
    subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
)
# Licences and text of others are not ours to correct; proof reports quote past releases.
NOT_OURS = ("functions/api_docs/assets/vendor/", "docs/proof/")
DOCUMENTS = tuple(
    name for name in TRACKED if name.endswith(".md") and not name.startswith(NOT_OURS)
)
ROOTS = tuple({name.split("/")[0] for name in TRACKED if "/" in name})
# Names that the how-to for a new function invents.
INVENTED = re.compile(r"reviews|<[a-z_]+>")

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
MAKE = re.compile(r"\bmake ([a-z][a-z0-9-]*)")
COMMAND = re.compile(
    r"^(?:[A-Z_]+=\S+ )*(?:(?:\.venv/bin/)?shop|make|docker compose run --rm tools)"
    r" ([a-z][a-z0-9-]*)(?: ([a-z][a-z-]*))?"
)
OPTION = re.compile(r"--[a-z][a-z-]*")
MODULE = re.compile(r"\bpython -m ((?:shop|tools|chaos|tests|functions)[\w.]*)")
COMMAND_LINE = re.compile(r"```console\n(.*?)```", re.DOTALL)


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def code_of(text: str) -> Iterator[str]:
    """Inline code and the lines of console blocks."""
    for block in COMMAND_LINE.findall(text):
        yield from block.splitlines()
    yield from CODE.findall(re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def headings_of(name: str) -> set[str]:
    """The anchors that GitHub makes of a document's headings."""
    lines = re.sub(r"```.*?```", "", text_of(name), flags=re.DOTALL).splitlines()
    titles = (line.lstrip("#").strip().lower() for line in lines if line.startswith("#"))
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_relative_links_lead_to_tracked_files_and_headings(name: str) -> None:
    missing: list[str] = []
    for target in LINK.findall(text_of(name)):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = (ROOT / name).parent / path if path else ROOT / name
        if not file.exists():
            missing.append(target)
        elif anchor and file.suffix == ".md":
            document = str(file.resolve().relative_to(ROOT))
            missing += [target] if anchor not in headings_of(document) else []
    assert missing == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_repository_paths_in_code_exist(name: str) -> None:
    missing: list[str] = []
    for code in CODE.findall(text_of(name)):
        path = code.split("::")[0].rstrip("/").removeprefix("./")
        if path.split("/")[0] not in ROOTS or "/" not in path or " " in path:
            continue
        if INVENTED.search(path) or "{" in path or "…" in path:
            continue
        if not any(ROOT.glob(path)):
            missing.append(code)
    assert missing == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_make_targets_exist(name: str) -> None:
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", text_of("Makefile"), re.MULTILINE))
    named = {target for code in code_of(text_of(name)) for target in MAKE.findall(code)}
    assert named - targets == set()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_shop_commands_and_their_options_exist(name: str) -> None:
    shop = get_command(app)
    assert isinstance(shop, TyperGroup)
    missing: list[str] = []
    for code in code_of(text_of(name)):
        line = code.removeprefix("$ ").split("#")[0]
        found = COMMAND.search(line)
        if found is None:
            continue
        command = shop.commands.get(found[1])
        if isinstance(command, TyperGroup) and found[2]:
            command = command.commands.get(found[2])
        if command is None:
            missing += [line] if "make " not in line else []
            continue
        options = {option for parameter in command.params for option in parameter.opts}
        options |= {option for parameter in command.params for option in parameter.secondary_opts}
        missing += [line] if set(OPTION.findall(line[found.start(1) :])) - options else []
    assert missing == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_modules_to_run_exist(name: str) -> None:
    modules = {m for code in code_of(text_of(name)) for m in MODULE.findall(code)}
    assert [m for m in sorted(modules) if find_spec(m.rstrip(".")) is None] == []


# ---------------------------------------------------------------- codes

DESIGN = tuple(name for name in DOCUMENTS if name.startswith("docs/design/"))
TABLE_ROW = re.compile(r"^\| ([IQW]-?[0-9]{1,2}) \| ([^|]+?) \|", re.MULTILINE)
DEFINED = re.compile(r"^\| ([A-Z]-?[0-9]{1,2}[a-z]?) \|", re.MULTILINE)
USED = re.compile(r"(?<![\w-])(?:[HSFIQ]-[0-9]{2}[a-z]?|W[0-9]{1,2})(?![\w-])")
SOURCES = tuple(
    name
    for name in TRACKED
    if name.endswith((".py", ".md")) and name not in DESIGN and not name.startswith(NOT_OURS)
)


# Names of documents that tests and generators make up.
CITED_BY_TESTS = {"docs/a.md"}
# Tests use these as codes that do not exist.
UNDEFINED = {"F-99", "H-98", "H-99", "W07", "W11"}


def defined_codes() -> set[str]:
    return {code for name in DESIGN for code in DEFINED.findall(text_of(name))}


def codes_in(*folders: str) -> set[str]:
    names = (name for name in SOURCES if name.startswith(folders))
    return {code for name in names for code in USED.findall(text_of(name))}


def test_every_code_in_the_sources_is_defined_in_the_design_documents() -> None:
    assert codes_in("") - defined_codes() - UNDEFINED == set()


@pytest.mark.parametrize(
    ("letters", "folder"),
    [
        ("F", "chaos/"),
        ("IQ", "tools/checker/invariants.py"),
        ("W", "shop/primitives/failpoints.py"),
        ("HS", "chaos/mutation_tests/"),
    ],
)
def test_design_tables_list_exactly_the_codes_of_the_source(letters: str, folder: str) -> None:
    defined = {code for code in defined_codes() if code[0] in letters}
    assert {code for code in codes_in(folder) if code[0] in letters} == defined


def test_both_readmes_link_to_the_same_documents() -> None:
    english, korean = (set(LINK.findall(text_of(n))) for n in ("README.md", "README.ko.md"))
    assert english - {"README.ko.md"} == korean - {"README.md"}


def test_invariants_and_failpoints_are_described_as_in_the_code() -> None:
    text = text_of("docs/design/correctness.md").replace("`", "")
    described = {invariant.id: invariant.what.replace("`", "") for invariant in INVARIANTS}
    named = {failpoint.value: failpoint.name for failpoint in Failpoint}
    assert dict(TABLE_ROW.findall(text)) == described | named


# ---------------------------------------------------------------- counts and lists


def test_end_to_end_guide_lists_every_group_in_order() -> None:
    listed = re.findall(r"^\| `([a-z-]+)` \|", text_of("docs/how-to/end-to-end.md"), re.MULTILINE)
    assert listed == list(GROUPS)


def test_documents_that_the_sources_cite_exist() -> None:
    cited = re.compile(r"(?<![\w/.-])docs/[\w./-]*[\w]|(?<![\w/\".-])(?:\w+/)*[a-z-]+\.md\b")
    missing: list[str] = []
    for name in TRACKED:
        if not name.endswith((".py", ".yaml", ".yml", ".toml", ".tpl", "Makefile")):
            continue
        paths = set(cited.findall(text_of(name))) - CITED_BY_TESTS
        missing += [f"{name}: {path}" for path in sorted(paths) if not any(ROOT.glob(f"{path}*"))]
    assert missing == []


def test_decision_records_are_numbered_in_sequence_and_titled_with_their_number() -> None:
    names = sorted(path.name for path in (ROOT / "docs/adr").glob("*.md"))
    numbers = [int(name.split("-")[0]) for name in names]
    titled = [int(text_of(f"docs/adr/{name}").split(".")[0].removeprefix("# ")) for name in names]
    assert numbers == titled == list(range(1, len(names) + 1))


def test_settings_that_the_local_platform_passes_on_are_listed() -> None:
    page = text_of("docs/RUN-LOCAL.md")

    assert [name for name in SHOP_VARIABLES if f"`{name}`" not in page] == []
