"""Images of one static program each, as archives that containerd and Docker load."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

FOLDERS = ("etc", "tmp", "ko-app", "var", "var/run", "var/run/ko")
USERS = b"root:x:0:0::/:/x\nnonroot:x:65532:65532::/:/x\n"


def write_image(archive: Path, name: str, program: Path) -> None:
    """Writes an image with this name, whose entry point is the program, run as user 65532."""
    layer = _layer(program)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "User": "65532:65532",
            "Entrypoint": [f"/{program.name}"],
            "Env": ["PATH=/", "KO_DATA_PATH=/var/run/ko"],
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        "history": [{"created": "2026-01-01T00:00:00Z"}],
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    with tarfile.open(archive, "w") as tar:
        _add(tar, "config.json", json.dumps(config).encode())
        _add(tar, "layer.tar", layer)
        _add(tar, "manifest.json", json.dumps(manifest).encode())


def _layer(program: Path) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for folder in FOLDERS:
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(entry)
        _add(tar, "etc/passwd", USERS)
        _add(tar, program.name, program.read_bytes(), mode=0o755)
    return content.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes, *, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    tar.addfile(entry, io.BytesIO(data))
