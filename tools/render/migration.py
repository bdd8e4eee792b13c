"""Renders the Job that migrates the database, for clusters without Helm."""

from __future__ import annotations

from tools.render.objects import (
    HARDENED,
    SECRETS_MOUNT,
    TMP_MOUNT,
    TMP_VOLUME,
    TOOLS_IMAGE,
    Manifest,
    metadata,
)

NAME = "shop-migration"
ADMIN_SECRET, PASSWORDS_SECRET = "shop-database-admin", "shop-role-passwords"
PASSWORDS_PATH = "/run/secrets/shop-roles"


def objects() -> list[Manifest]:
    """The Job, and its service account without rights.

    It expects the Secrets ``shop-database-admin`` (``database-url`` of a role that may create
    roles) and ``shop-role-passwords``.  A Job cannot be changed: it deletes itself, so that the
    next release can be applied.
    """
    account: Manifest = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(NAME),
        "automountServiceAccountToken": False,
    }
    labels = {
        "app.kubernetes.io/name": NAME,
        "app.kubernetes.io/part-of": "msa-shop",
        "msa-shop/reaches-database": "true",
    }
    job: Manifest = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(NAME),
        "spec": {
            "backoffLimit": 6,
            "activeDeadlineSeconds": 600,
            "ttlSecondsAfterFinished": 600,
            "template": {"metadata": {"labels": labels}, "spec": _pod()},
        },
    }
    return [account, job]


def _pod() -> Manifest:
    return {
        "serviceAccountName": NAME,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Never",
        "containers": [
            {
                "name": "migration",
                "image": TOOLS_IMAGE,
                "args": ["migrate", f"--passwords={PASSWORDS_PATH}"],
                "env": [{"name": "SHOP_PROFILE", "value": "prod"}],
                "volumeMounts": [
                    TMP_MOUNT,
                    SECRETS_MOUNT,
                    {"name": "roles", "mountPath": PASSWORDS_PATH, "readOnly": True},
                ],
                "resources": {
                    "requests": {"cpu": "50m", "memory": "192Mi"},
                    "limits": {"cpu": "1", "memory": "384Mi"},
                },
                "securityContext": HARDENED,
            }
        ],
        "volumes": [
            TMP_VOLUME,
            {"name": "secrets", "secret": {"secretName": ADMIN_SECRET}},
            {"name": "roles", "secret": {"secretName": PASSWORDS_SECRET}},
        ],
    }
