"""Rules for ``stack.yml``: faas-cli ignores unknown keys, and the Community Edition has limits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from tools.manifest_rules.manifests import Manifest, ManifestSet, Rule, is_whole

FUNCTIONS_MAX, REPLICAS_MAX, NAME_MAX = 15, 5, 63
DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
# the schema of faas-cli (go-sdk/stack/schema.go); its YAML decoder ignores every other key
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
# the labels of its scaling that the validator of faas-netes accepts in the Community Edition
LABELS = ("com.openfaas.scale.max", "com.openfaas.scale.min")
# faas-netes rejects annotations of these providers, and a topic that is a list
CLOUD_ANNOTATIONS = ("amazonaws.com", "gke.io")
# read by OpenFaaS's watchdog only, which the image does not have
WATCHDOG = ("exec_timeout", "read_timeout", "write_timeout")


def stack_fits_the_community_edition(manifests: ManifestSet) -> Iterator[str]:
    """The Community Edition runs 15 functions of at most 5 replicas."""
    functions = _functions(manifests)
    if len(functions) > FUNCTIONS_MAX:
        yield f"stack.yml: {len(functions)} functions are more than {FUNCTIONS_MAX}"
    for name, function in functions.items():
        labels = function.get("labels", {})
        for label in LABELS:
            replicas = labels.get(label, "1")
            if not is_whole(replicas) or not 1 <= int(replicas) <= REPLICAS_MAX:
                yield f"{name}: {label} {replicas} is not 1 to {REPLICAS_MAX}"


def stack_is_accepted_by_the_community_edition(manifests: ManifestSet) -> Iterator[str]:
    """What makes faas-netes reject a function with 400: labels, annotations, names."""
    for name, function in _functions(manifests).items():
        if not DNS_LABEL.fullmatch(name):
            yield f"{name}: is not a DNS label"
        if not function.get("image"):
            yield f"{name}: has no image"
        for label in sorted(set(function.get("labels", {})) - set(LABELS)):
            yield f"{name}: {label} is not a label of the Community Edition"
        for key, value in function.get("annotations", {}).items():
            if any(provider in key for provider in CLOUD_ANNOTATIONS):
                yield f"{name}: {key} is not an annotation of the Community Edition"
            elif key == "topic" and "," in value:
                yield f"{name}: has more than one topic"


def stack_keys_are_known(manifests: ManifestSet) -> Iterator[str]:
    """faas-cli ignores unknown keys without an error."""
    if manifests.stack and manifests.stack.get("version") != "1.0":
        yield f"stack.yml: version {manifests.stack.get('version')!r} is not 1.0"
    for name, function in _functions(manifests).items():
        for key in sorted(function.keys() - KEYS):
            yield f"{name}: {key} is not a key of a stack file"


def stack_variables_are_text(manifests: ManifestSet) -> Iterator[str]:
    """The environment maps text to text: faas-cli rejects numbers and booleans."""
    for name, function in _functions(manifests).items():
        for variable, value in function.get("environment", {}).items():
            if not isinstance(value, str):
                yield f"{name}: {variable} is {value!r}, not text"
            elif variable in WATCHDOG:
                yield f"{name}: {variable} has no effect without a watchdog"


def stack_secret_files_are_declared(manifests: ManifestSet) -> Iterator[str]:
    """A file that a variable names is one of the function's secrets."""
    for name, function in _functions(manifests).items():
        for variable, value in function.get("environment", {}).items():
            file = PurePosixPath(str(value)).name
            if variable.endswith("_FILE") and file not in function.get("secrets", ()):
                yield f"{name}: {variable} names {file}, which is not one of its secrets"


def stack_functions_are_confined(manifests: ManifestSet) -> Iterator[str]:
    """A function has a read-only root, a memory limit, and a name that fits a host name."""
    for name, function in _functions(manifests).items():
        if function.get("readonly_root_filesystem") is not True:
            yield f"{name}: its root file system is writable"
        if "memory" not in function.get("limits", {}):
            yield f"{name}: has no memory limit"
        if len(name) > NAME_MAX:
            yield f"{name}: the name is longer than {NAME_MAX}"


def _functions(manifests: ManifestSet) -> dict[str, Manifest]:
    functions: dict[str, Manifest] = (manifests.stack or {}).get("functions", {})
    return functions


RULES: tuple[Rule, ...] = (
    stack_fits_the_community_edition,
    stack_is_accepted_by_the_community_edition,
    stack_keys_are_known,
    stack_variables_are_text,
    stack_secret_files_are_declared,
    stack_functions_are_confined,
)
