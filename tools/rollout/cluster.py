"""The cluster, through ``kubectl``; each command that changes something is printed.

Where there is no ``kubectl``, as in the operators' pod, a pod's service account reads what it may.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tools.kubernetes_api import SERVING, KubernetesApi
from tools.rollout.traffic import ANNOTATION, Claim, Json, ServiceState, service_state

SERVICES = "services.serving.knative.dev"
KUBECTL_SECONDS = 15
# a command in a container, such as requests that start a function's first pod
EXECUTION_SECONDS = 120
POD_SECONDS = 10
PODS_MAX = 500
LINES_MAX = 5


class KubectlError(OSError):
    """``kubectl`` failed; the text is the end of its output."""


class ChangedByOthersError(OSError):
    """The Service changed since it was read: another roll-out or a person is at work."""


@dataclass(frozen=True)
class Cluster:
    """One namespace of the cluster that ``kubectl`` is configured for."""

    namespace: str
    context: str = ""

    def services(self, names: Iterable[str]) -> dict[str, ServiceState]:
        """The Services with these names; those that do not exist are missing."""
        listed = self.get_raw(f"{SERVING}/{self.namespace}/services")
        wanted = set(names)
        states = map(service_state, listed["items"])
        return {state.name: state for state in states if state.name in wanted}

    def readiness_of(self, revision: str) -> tuple[bool | None, str]:
        """Whether a revision is Ready, None while that is unknown, and the reason."""
        document = self.get_raw(f"{SERVING}/{self.namespace}/revisions/{revision}")
        for condition in document.get("status", {}).get("conditions", ()):
            if condition["type"] == "Ready":
                value = {"True": True, "False": False}.get(condition["status"])
                return value, str(condition.get("message") or condition.get("reason") or "")
        return None, ""

    def set_traffic(self, state: ServiceState, targets: list[Json], claim: Claim | None) -> None:
        """Sets targets and claim of a Service if it is still in this state.

        Raises ChangedByOthersError if it is not: the API server compares the resourceVersion.
        """
        patch = {
            "metadata": {
                "resourceVersion": state.version,
                "annotations": {ANNOTATION: claim.as_text() if claim else None},
            },
            "spec": {"traffic": targets},
        }
        self._change("patch", SERVICES, state.name, "--type=merge", f"--patch={json.dumps(patch)}")

    def logs(self, revisions: Iterable[str], since: datetime) -> Iterable[tuple[str, str]]:
        """The lines of the revisions' pods since a time, each with its pod."""
        selector = f"serving.knative.dev/revision in ({','.join(revisions)})"
        text = self._run(
            "logs",
            f"--selector={selector}",
            "--container=user-container",
            "--prefix",
            "--tail=-1",
            "--ignore-errors",
            f"--max-log-requests={PODS_MAX}",
            f"--since-time={since.isoformat(timespec='seconds')}",
        )
        for line in text.splitlines():
            prefix, _, rest = line.partition(" ")
            yield prefix.removeprefix("[pod/").partition("/")[0], rest

    def execute(self, workload: str, *command: str) -> str:
        """The output of a command in a container of the cluster, such as ``deploy/shop-tools``.

        Raises KubectlError when it fails, or when the workload has no running pod.
        """
        running = f"--pod-running-timeout={POD_SECONDS}s"
        return self._run("exec", running, workload, "--", *command, seconds=EXECUTION_SECONDS)

    def get_raw(self, path: str) -> Any:
        """The document at a path of the API server; OSError when there is none."""
        is_in_pod = "KUBERNETES_SERVICE_HOST" in os.environ
        if is_in_pod and shutil.which("kubectl") is None and not self.context:
            return KubernetesApi.of_this_pod().request("GET", path)
        return json.loads(self._run("get", f"--raw={path}"))

    def _change(self, *arguments: str) -> None:
        print(f"$ {shlex.join(self._command(*arguments))}", file=sys.stderr)
        self._run("--field-manager=shop-rollout", *arguments)

    def _command(self, *arguments: str) -> list[str]:
        context = [f"--context={self.context}"] if self.context else []
        return ["kubectl", *context, f"--namespace={self.namespace}", *arguments]

    def _run(self, *arguments: str, seconds: int = KUBECTL_SECONDS) -> str:
        try:
            result = subprocess.run(
                self._command(*arguments),
                capture_output=True,
                text=True,
                check=False,
                timeout=seconds,
                # Ctrl-C ends the roll-out, not the command that returns the requests
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            raise KubectlError(f"kubectl has not answered in {seconds} s") from None
        except FileNotFoundError:
            raise KubectlError("kubectl is not installed, or not on the PATH") from None
        if result.returncode == 0:
            return result.stdout
        # a command that was executed in the cluster writes what it found to its output
        lines = (result.stdout + result.stderr).strip().splitlines()
        reason = "; ".join(lines[-LINES_MAX:]) or "no message"
        if "(Conflict)" in result.stderr or "object has been modified" in result.stderr:
            raise ChangedByOthersError(reason)
        raise KubectlError(reason)
