"""Builds the app of a process from its settings and services."""

from __future__ import annotations

from shop.primitives import failpoints
from shop.primitives.spec import WITHOUT_ACCOUNT, FunctionSpec
from shop.runtime import config
from shop.runtime.app import App
from shop.runtime.services import Services


def make_app(specs: tuple[FunctionSpec, ...], settings: config.Settings | None = None) -> App:
    """The app of one process; ``ConfigurationError`` lists every invalid setting.

    Without ``settings``, which ``settings_of`` has checked, the environment's are read.
    """
    settings = settings or settings_of(specs)
    services = Services(settings, source=specs[0].source)
    return App(specs, services)


def settings_of(specs: tuple[FunctionSpec, ...]) -> config.Settings:
    """The settings of these functions; a failpoint of another function is an error."""
    sources = tuple(spec.source for spec in specs if spec.emits)
    settings = config.load(needs=needs_of(specs), sources=sources)
    if settings.crash and [failpoints.parse(settings.crash).function] != [
        spec.name for spec in specs
    ]:
        raise config.ConfigurationError("SHOP_CRASH does not name the one function of this process")
    return settings


def needs_of(specs: tuple[FunctionSpec, ...]) -> tuple[str, ...]:
    """Keys of ``config.WHERE_NEEDED`` whose settings these functions require."""
    needs: set[str] = set()
    for spec in specs:
        needs |= set(spec.needs)
        needs |= {"tokens"} if _reads_tokens(spec) else set()
        needs |= {"events"} if spec.receives_events else set()
        needs |= {"announces"} if spec.emits else set()
        # the fingerprint of an idempotent request is made with the signing key
        needs |= {"signs"} if any(route.idempotent for route in spec.routes) else set()
        needs |= {"webhook"} if any(r.auth == "provider" for r in spec.routes) else set()
        needs |= {"carriers"} if any(r.auth == "carrier" for r in spec.routes) else set()
        needs |= {"issues_tokens"} if spec.issues_tokens else set()
        needs |= {"links"} if spec.reads_links else set()
        needs |= {"signs_webhooks"} if spec.sends_webhooks else set()
    return tuple(sorted(needs))


def _reads_tokens(spec: FunctionSpec) -> bool:
    return any(route.auth not in WITHOUT_ACCOUNT for route in spec.routes)
