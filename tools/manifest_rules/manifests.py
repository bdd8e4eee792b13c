"""Reads manifests for the rules: the objects of one deployment and the event types of the specs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from events.vocabulary import class_of
from shop.registry import all_specs

# Any: YAML of kinds that this program has no types for; the rules read it key by key.
Manifest = dict[str, Any]

SERVING = "serving.knative.dev/"
GO_DURATION = re.compile(r"(\d+(\.\d+)?(ns|us|ms|s|m|h))+")
ISO_DURATION = re.compile(r"P(?=.)(\d+D)?(T(?=.)(\d+H)?(\d+M)?(\d+(\.\d+)?S)?)?")
ISO_SECONDS = re.compile(r"PT(\d+(?:\.\d+)?)S")


@dataclass(frozen=True)
class ManifestSet:
    """One deployment: its objects, OpenFaaS's ``stack``, and the event types that specs emit."""

    objects: tuple[Manifest, ...] = ()
    stack: Manifest | None = None
    emitted: frozenset[str] = frozenset()

    def kind(self, *kinds: str, api: str = "") -> Iterator[Manifest]:
        """Objects of these kinds whose apiVersion starts with ``api``."""
        for manifest in self.objects:
            if manifest.get("kind") in kinds and manifest.get("apiVersion", "").startswith(api):
                yield manifest

    def without(self, patches: ManifestSet) -> ManifestSet:
        """These manifests without the objects that kustomize's ``$patch: delete`` removes."""
        deleted = {_key(patch) for patch in patches.objects if "$patch" in patch}
        kept = (each for each in self.objects if _key(each) not in deleted)
        return ManifestSet(tuple(kept), self.stack, self.emitted)

    def functions(self) -> Iterator[Manifest]:
        """The Knative Services."""
        return self.kind("Service", api=SERVING)

    def function(self, name: str) -> Manifest | None:
        """The Knative Service with this name."""
        return next((manifest for manifest in self.functions() if name_of(manifest) == name), None)

    def pods(self) -> Iterator[tuple[Manifest, Manifest]]:
        """Every object that creates pods, with its pod template."""
        for manifest in self.objects:
            template = _template_of(manifest)
            if template:
                yield manifest, template

    def event_types(self) -> set[str]:
        """The types of all EventTypes."""
        return {
            attribute.get("value", "")
            for manifest in self.kind("EventType")
            for attribute in manifest["spec"].get("attributes", ())
            if attribute["name"] == "type"
        }


Rule = Callable[[ManifestSet], Iterator[str]]


def read(paths: Iterable[Path]) -> ManifestSet:
    """Reads YAML files and folders, without kustomizations and the patches in folders."""
    objects: list[Manifest] = []
    stack = None
    for path in sorted(_files(paths)):
        for document in _documents(path.read_text("utf-8")):
            if "functions" in document and "provider" in document:
                stack = document
            elif _is_object(document):
                objects.append(document)
    return ManifestSet(tuple(objects), stack, emitted_types())


def parse(text: str) -> ManifestSet:
    """Parses the output of a renderer such as Helm."""
    return ManifestSet(tuple(_documents(text)), None, emitted_types())


def emitted_types() -> frozenset[str]:
    """The types of all events that a function emits."""
    return frozenset(class_of(name).type for spec in all_specs() for name in spec.emits)


def _documents(text: str) -> Iterator[Manifest]:
    documents: Iterator[Manifest | None] = yaml.load_all(text, Loader=yaml.CSafeLoader)
    return (document for document in documents if document)


def _files(paths: Iterable[Path]) -> set[Path]:
    found: set[Path] = set()
    for path in paths:
        inside = (*path.rglob("*.yaml"), *path.rglob("*.yml")) if path.is_dir() else (path,)
        is_named = not path.is_dir()
        found |= {file for file in inside if is_named or not file.name.startswith("patch-")}
    return found


def _is_object(document: Manifest) -> bool:
    return document.get("kind") not in (None, "Kustomization", "Component")


def _template_of(manifest: Manifest) -> Manifest | None:
    spec = section(manifest, "spec")
    if manifest.get("kind") == "Pod":
        return manifest
    if manifest.get("kind") == "CronJob":
        spec = section(spec, "jobTemplate", "spec")
    if manifest.get("kind") == "ScaledJob":
        spec = section(spec, "jobTargetRef")
    is_ours = manifest.get("kind") != "Service" or manifest.get("apiVersion", "").startswith(
        SERVING
    )
    template = section(spec, "template")
    return template if is_ours and "spec" in template else None


def _key(manifest: Manifest) -> tuple[str, str, str]:
    return manifest["apiVersion"], manifest["kind"], name_of(manifest)


def name_of(manifest: Manifest) -> str:
    """The name of an object, without its kind."""
    return str(manifest["metadata"].get("name", ""))


def describe(manifest: Manifest) -> str:
    """Kind and name of an object, as findings state them."""
    return f"{manifest.get('kind')}/{name_of(manifest)}"


def section(manifest: Manifest, *keys: str) -> Manifest:
    """The mapping at a path of keys; empty when a key is missing or null."""
    for key in keys:
        manifest = manifest.get(key) or {}
    return manifest


def annotations_of(manifest: Manifest) -> dict[str, str]:
    """The annotations of an object or a pod template."""
    return section(manifest, "metadata", "annotations")


def labels_of(manifest: Manifest) -> dict[str, str]:
    """The labels of an object or a pod template."""
    return section(manifest, "metadata", "labels")


def containers_of(template: Manifest) -> list[Manifest]:
    """The containers of a pod template."""
    return list(template["spec"].get("containers", ()))


def environment_of(container: Manifest) -> dict[str, str]:
    """The environment variables of a container that have a literal value."""
    return {entry["name"]: str(entry.get("value", "")) for entry in container.get("env", ())}


def is_whole(text: object) -> bool:
    """True for a whole number, as a number or as text."""
    return bool(re.fullmatch(r"\d+", str(text)))


def is_true(text: object) -> bool:
    """True for the YAML value true and the label value "true"."""
    return text is True or text == "true"


def as_seconds(iso: str) -> float:
    """The seconds of a duration such as ``PT30S``; 0 for any other notation."""
    found = ISO_SECONDS.fullmatch(str(iso))
    return float(found[1]) if found else 0.0
