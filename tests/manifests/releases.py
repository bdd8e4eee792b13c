"""Installs the chart in an API server with Helm, upgrades it, rolls it back and uninstalls it.

There is no kubelet, so Helm neither runs the chart's hooks nor waits for pods.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple

import yaml

from tests.manifests.api_server import NAMESPACE, ApiServer, Rejected
from tests.manifests.check_with_clients import CHART, ClientMismatchError, run
from tests.manifests.comparison import contents, differences
from tools.manifest_rules.__main__ import ROOT
from tools.manifest_rules.manifests import Manifest, describe, parse

RELEASE = "shop"
# An upgrade that changes ConfigMaps and the templates of functions.
CHANGES = (
    "--set-string=settings.RATE_LIMIT_PER_MINUTE=60",
    "--set=functions.list_products.maxScale=3",
    "--set=retentionPeriod=3m",
)
# Knative's webhook rejects another class for a Broker that exists.
REJECTED_CHANGE = "--set=broker.class=kafka"
UPGRADE = str(ROOT / "scripts" / "helm-upgrade")
UPGRADE_SECONDS = 600


class Helm(NamedTuple):
    """The program, as a client with all rights of one API server."""

    program: Path
    server: ApiServer
    folder: Path

    def run(self, *arguments: str) -> str:
        """The output of a command; raises ClientMismatchError with its error message."""
        return run([str(self.program), *arguments], self.environment())

    def environment(self) -> dict[str, str]:
        """How Helm finds the server, and keeps its files in a folder of its own."""
        return {
            "HOME": str(self.folder),
            "HELM_KUBEAPISERVER": self.server.url,
            "HELM_KUBETOKEN": self.server.token,
            "HELM_KUBECAFILE": str(self.server.certificate),
            "HELM_NAMESPACE": NAMESPACE,
        }

    def installed(self, *options: str) -> tuple[Manifest, ...]:
        """The objects of the release, as they were sent."""
        return parse(self.run("get", "manifest", RELEASE, *options)).objects


def check_release(
    helm: Helm, values: Manifest, chart: Path = CHART, *, is_upgraded: bool = False
) -> list[str]:
    """The problems of a chart from its installation to its removal, with these values."""
    file = helm.folder / "values.yaml"
    file.write_text(yaml.safe_dump(values), "utf-8")
    options = (RELEASE, str(chart), "--no-hooks", f"--values={file}")
    sent: tuple[Manifest, ...] = ()
    try:
        helm.run("install", *options)
        sent = helm.installed()
        problems = _differences(helm.server, sent)
        if is_upgraded:
            problems += _check_upgrade(helm, options, sent)
        helm.run("uninstall", RELEASE, "--no-hooks")
    except (ClientMismatchError, Rejected) as error:
        _remove(helm)
        return [str(error)]
    return problems + [f"{describe(each)} is left" for each in sent if helm.server.has(each)]


def check_rejected_upgrade(helm: Helm, values: Manifest) -> list[str]:
    """The problems of ``scripts/helm-upgrade`` when the server rejects a part of an upgrade.

    The broker's class is changed, which needs a new Broker and new Triggers (docs/KNATIVE.md).
    """
    file = helm.folder / "values.yaml"
    file.write_text(yaml.safe_dump(values), "utf-8")
    options = ("--namespace", NAMESPACE, "--values", str(file), "--timeout", "60s")
    try:
        installed, output = _upgrade(helm, *options)
        if installed != 0:
            return [f"the installation fails: {output}"]
        sent = helm.installed()
        before = _contents(helm.server, sent)
        rejected, output = _upgrade(helm, *options, *CHANGES, REJECTED_CHANGE)
        problems = _changed(before, helm.server, sent, "the rejected upgrade")
        problems += _added(helm, sent)
        if rejected != 1 or "was rolled back" not in output or helm.installed() != sent:
            problems.append(f"the upgrade ends with {rejected}: {output}")
        for each in sent:
            if each["kind"] in ("Broker", "Trigger"):
                helm.server.delete(each)
        accepted, output = _upgrade(helm, *options, *CHANGES, REJECTED_CHANGE)
        if accepted != 0:
            problems.append(f"the upgrade without a Broker fails: {output}")
        problems += _differences(helm.server, helm.installed())
    except (ClientMismatchError, Rejected) as error:
        problems = [str(error)]
    finally:
        _remove(helm)
    return problems


def _check_upgrade(helm: Helm, options: tuple[str, ...], sent: tuple[Manifest, ...]) -> list[str]:
    """The problems of an upgrade of the installed objects, and of the way back."""
    before = _contents(helm.server, sent)
    helm.run("upgrade", *options, *CHANGES)
    upgraded = helm.installed()
    problems = _differences(helm.server, upgraded)
    if upgraded == sent:
        problems.append("the upgrade changes nothing")
    helm.run("rollback", RELEASE, "1", "--no-hooks")
    return problems + _changed(before, helm.server, sent, "the roll-back")


def _added(helm: Helm, sent: tuple[Manifest, ...]) -> list[str]:
    """What an upgrade to the second revision created and left behind."""
    names = {describe(each) for each in sent}
    added = [each for each in helm.installed("--revision=2") if describe(each) not in names]
    return [
        f"{describe(each)} is left by the rejected upgrade"
        for each in added
        if helm.server.has(each)
    ]


def _upgrade(helm: Helm, *options: str) -> tuple[int, str]:
    """Runs the script; its exit status and output."""
    path = f"{helm.program.parent}:/usr/bin:/bin"
    result = subprocess.run(
        [UPGRADE, *options],
        env={**helm.environment(), "PATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=UPGRADE_SECONDS,
    )
    return result.returncode, result.stdout + result.stderr


def _remove(helm: Helm) -> None:
    helm.run("uninstall", RELEASE, "--no-hooks", "--ignore-not-found")


def _differences(server: ApiServer, sent: tuple[Manifest, ...]) -> list[str]:
    return [problem for each in sent for problem in differences(server, each)]


def _contents(server: ApiServer, sent: tuple[Manifest, ...]) -> list[Manifest]:
    return [contents(server.stored(each)) for each in sent]


def _changed(
    before: list[Manifest], server: ApiServer, sent: tuple[Manifest, ...], cause: str
) -> list[str]:
    pairs = zip(before, _contents(server, sent), strict=True)
    return [f"{describe(old)}: changed by {cause}" for old, new in pairs if old != new]
