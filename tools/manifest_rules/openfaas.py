"""Rules for ``stack.yml``: faas-cli ignores what it does not know, and CE has hard limits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from tools.manifest_rules.manifests import GO_DURATION, Manifest, Rule, World, is_whole

FUNCTIONS_MAX, REPLICAS_MAX, NAME_MAX = 15, 5, 63
# faas-cli's own schema (go-sdk/stack/schema.go); its YAML decoder drops every other key
KEYS = {
    "annotations",
    "build_args",
    "build_options",
    "build_secrets",
    "constraints",
    "environment",
    "environment_file",
    "fprocess",
    "handler",
    "image",
    "labels",
    "lang",
    "limits",
    "namespace",
    "platforms",
    "readonly_root_filesystem",
    "requests",
    "secrets",
    "skip_build",
}
LABELS = {f"com.openfaas.scale.{name}" for name in ("max", "min", "zero", "zero-duration")}
TIMEOUTS = ("exec_timeout", "read_timeout", "write_timeout")


def the_community_edition_takes_it(world: World) -> Iterator[str]:
    """15 functions of at most 5 replicas."""
    functions = _functions(world)
    if len(functions) > FUNCTIONS_MAX:
        yield f"stack.yml: {len(functions)} functions are more than {FUNCTIONS_MAX}"
    for name, function in functions.items():
        most = function.get("labels", {}).get("com.openfaas.scale.max", "0")
        if not is_whole(most) or not 1 <= int(most) <= REPLICAS_MAX:
            yield f"{name}: scale.max {most} is not 1 to {REPLICAS_MAX}"


def the_stack_has_keys_that_are_read(world: World) -> Iterator[str]:
    """faas-cli drops unknown keys without a word."""
    if world.stack and world.stack.get("version") != "1.0":
        yield f"stack.yml: version {world.stack.get('version')!r} is not 1.0"
    for name, function in _functions(world).items():
        for key in sorted(function.keys() - KEYS):
            yield f"{name}: {key} is no key of a stack file"
        for key in sorted(set(function.get("labels", {})) - LABELS):
            yield f"{name}: {key} is no label of OpenFaaS's"


def variables_are_text(world: World) -> Iterator[str]:
    """The environment maps text to text: a bare number or true is refused."""
    for name, function in _functions(world).items():
        for variable, value in function.get("environment", {}).items():
            if not isinstance(value, str):
                yield f"{name}: {variable} is {value!r}, not text"
            elif variable in TIMEOUTS and not GO_DURATION.fullmatch(value):
                yield f"{name}: {variable} is {value!r}, not a Go duration"


def secret_files_are_secrets(world: World) -> Iterator[str]:
    """A file a variable names is among the secrets the function is given."""
    for name, function in _functions(world).items():
        for variable, value in function.get("environment", {}).items():
            file = PurePosixPath(str(value)).name
            if variable.endswith("_FILE") and file not in function.get("secrets", ()):
                yield f"{name}: {variable} names {file}, which is no secret of its"


def stack_functions_are_confined(world: World) -> Iterator[str]:
    """A read-only root, a memory limit, and a name that is a host's."""
    for name, function in _functions(world).items():
        if function.get("readonly_root_filesystem") is not True:
            yield f"{name}: its root can be written"
        if "memory" not in function.get("limits", {}):
            yield f"{name}: has no memory limit"
        if len(name) > NAME_MAX:
            yield f"{name}: the name is longer than {NAME_MAX}"


def _functions(world: World) -> dict[str, Manifest]:
    functions: dict[str, Manifest] = (world.stack or {}).get("functions", {})
    return functions


RULES: tuple[Rule, ...] = (
    the_community_edition_takes_it,
    the_stack_has_keys_that_are_read,
    variables_are_text,
    secret_files_are_secrets,
    stack_functions_are_confined,
)
