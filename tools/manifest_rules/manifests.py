"""What the rules look at: all objects of one deployment, and what the specs say about events."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from events.vocabulary import class_of
from shop.registry import all_specs

Manifest = dict[str, Any]

SERVING = "serving.knative.dev/"
GO_DURATION = re.compile(r"(\d+(\.\d+)?(ns|us|ms|s|m|h))+")
ISO_DURATION = re.compile(r"P(?=.)(\d+D)?(T(?=.)(\d+H)?(\d+M)?(\d+(\.\d+)?S)?)?")
ISO_SECONDS = re.compile(r"PT(\d+(?:\.\d+)?)S")


@dataclass(frozen=True)
class World:
    """One deployment; ``stack`` is OpenFaaS's, ``emitted`` are the event types that specs emit."""

    objects: tuple[Manifest, ...] = ()
    stack: Manifest | None = None
    emitted: frozenset[str] = frozenset()

    def kind(self, *kinds: str, api: str = "") -> Iterator[Manifest]:
        """Objects of these kinds, of an API group that begins so."""
        for thing in self.objects:
            if thing.get("kind") in kinds and thing.get("apiVersion", "").startswith(api):
                yield thing

    def without(self, gone: World) -> World:
        """This world less the objects that kustomize's patches (``$patch: delete``) take away."""
        away = {(g["apiVersion"], g["kind"], name_of(g)) for g in gone.objects if "$patch" in g}
        kept = (o for o in self.objects if (o["apiVersion"], o["kind"], name_of(o)) not in away)
        return World(tuple(kept), self.stack, self.emitted)

    def functions(self) -> Iterator[Manifest]:
        """The Knative Services."""
        return self.kind("Service", api=SERVING)

    def function(self, name: str) -> Manifest | None:
        """The Knative Service of this name."""
        return next((thing for thing in self.functions() if name_of(thing) == name), None)

    def pods(self) -> Iterator[tuple[Manifest, Manifest]]:
        """Everything that makes pods, with the pod's template."""
        for thing in self.objects:
            template = _template_of(thing)
            if template:
                yield thing, template

    def event_types(self) -> set[str]:
        """The types of all EventTypes."""
        return {
            attribute.get("value", "")
            for thing in self.kind("EventType")
            for attribute in thing["spec"].get("attributes", ())
            if attribute["name"] == "type"
        }


Rule = Callable[[World], Iterator[str]]


def read(paths: Iterable[Path]) -> World:
    """The world of YAML files and folders; patches and kustomizations are no objects."""
    objects: list[Manifest] = []
    stack = None
    for path in sorted(_files(paths)):
        for document in yaml.safe_load_all(path.read_text("utf-8")):
            if isinstance(document, dict) and "functions" in document and "provider" in document:
                stack = document
            elif isinstance(document, dict) and _is_object(document):
                objects.append(document)
    return World(tuple(objects), stack, emitted_types())


def of_text(text: str) -> World:
    """The world that a renderer such as Helm printed."""
    documents = (d for d in yaml.safe_load_all(text) if isinstance(d, dict))
    return World(tuple(documents), None, emitted_types())


def emitted_types() -> frozenset[str]:
    """The types of all events that some function emits."""
    return frozenset(class_of(name).type for spec in all_specs() for name in spec.emits)


def _files(paths: Iterable[Path]) -> set[Path]:
    found: set[Path] = set()
    for path in paths:
        inside = (*path.rglob("*.yaml"), *path.rglob("*.yml")) if path.is_dir() else (path,)
        is_named = not path.is_dir()
        found |= {file for file in inside if is_named or not file.name.startswith("patch-")}
    return found


def _is_object(document: Manifest) -> bool:
    return document.get("kind") not in (None, "Kustomization", "Component")


def _template_of(thing: Manifest) -> Manifest | None:
    spec = thing.get("spec") or {}
    if thing.get("kind") == "Pod":
        return thing
    if thing.get("kind") == "CronJob":
        spec = spec.get("jobTemplate", {}).get("spec", {})
    is_ours = thing.get("kind") != "Service" or thing.get("apiVersion", "").startswith(SERVING)
    template = spec.get("template") if is_ours else None
    return template if isinstance(template, dict) and "spec" in template else None


def name_of(thing: Manifest) -> str:
    """kind-free name of an object."""
    return str(thing["metadata"].get("name", ""))


def shown(thing: Manifest) -> str:
    """How a finding names an object."""
    return f"{thing.get('kind')}/{name_of(thing)}"


def annotations_of(thing: Manifest) -> dict[str, str]:
    """An object's or a template's annotations."""
    return dict((thing.get("metadata") or {}).get("annotations") or {})


def labels_of(thing: Manifest) -> dict[str, str]:
    """An object's or a template's labels."""
    return dict((thing.get("metadata") or {}).get("labels") or {})


def containers_of(template: Manifest) -> list[Manifest]:
    """The containers of a pod's template."""
    return list(template["spec"].get("containers", ()))


def environment_of(container: Manifest) -> dict[str, str]:
    """The variables a container is given in so many words."""
    return {entry["name"]: str(entry.get("value", "")) for entry in container.get("env", ())}


def is_whole(text: object) -> bool:
    """True for a whole number, which annotations carry as text."""
    return bool(re.fullmatch(r"\d+", str(text)))


def is_true(text: object) -> bool:
    """True for YAML's and a label's true."""
    return text is True or text == "true"


def as_seconds(iso: str) -> float:
    """The seconds of ``PT30S``; 0 for what is not so written."""
    found = ISO_SECONDS.fullmatch(str(iso))
    return float(found[1]) if found else 0.0
