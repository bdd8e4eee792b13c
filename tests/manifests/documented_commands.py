"""The console lines of the pages about deploying, and whether a program has their options."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from tempfile import gettempdir

ROOT = Path(__file__).resolve().parents[2]
# of the lock: the machine may have none, or another version
KUBECTL = str(Path(sys.executable).parent / "kubectl")
PAGES = (
    "README.md",
    "docs/deploy/helm.md",
    "docs/deploy/kustomize.md",
    "docs/OPENFAAS.md",
    "docs/KNATIVE.md",
    "docs/ARGOCD.md",
    "docs/how-to/back-up-and-restore.md",
    "docs/how-to/run-with-compose.md",
    "docs/how-to/upgrade-and-roll-back.md",
    "helm/msa-shop/README.md",
    "infra/kind/README.md",
)
# of README.md only the section about deploying
SECTION = re.compile(r"^## Deploy$.*?(?=^## )", re.DOTALL | re.MULTILINE)
BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)
SECONDS = 30


def lines_of(page: str) -> list[str]:
    """The lines of a page's console blocks; a continued line is one, a comment none."""
    text = (ROOT / page).read_text("utf-8")
    if page == "README.md":
        (text,) = SECTION.findall(text)
    lines = "".join(BLOCK.findall(text)).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def words_of(line: str, program: str) -> list[list[str]]:
    """The words of each command of a program in a line, without redirections."""
    found: list[list[str]] = []
    # a value that the shell computes
    line = re.sub(r'"\$\([^)]*\)"', "VALUE", line)
    for part in re.split(r"\s(?:\||&&)\s|\$\(|;\s", line):
        command = re.sub(r"^(?:\$ |\w+=\S+ )*", "", part.strip())
        if command.partition(" ")[0] != program:
            continue
        words = shlex.split(command.rstrip(")&"), comments=True)
        found.append([word for word in words if word not in "<>"])
    return found


def rejection_of(path: str, words: list[str]) -> str:
    """Why a program does not accept these words, empty when it does.  Nothing is executed.

    With ``--help`` it checks command and options, and prints the help of that command.
    """
    end = words.index("--") if "--" in words else len(words)
    asked = [path, *words[1:end], "--help"]
    # helm and kubectl look for their files there
    home = {"HOME": gettempdir()}
    done = subprocess.run(
        asked, capture_output=True, text=True, check=False, timeout=SECONDS, env=home
    )
    values = {after for option, after in pairwise(words) if option in ("-n", "--namespace")}
    command = next(word for word in words[1:] if word[0] != "-" and word not in values)
    text = done.stdout + done.stderr
    if done.returncode != 0:
        lines = text.strip().splitlines() or ["no message"]
        return next((line for line in lines if "unknown" in line), lines[-1])
    usage = re.search(
        r"usage:\s+\S*" + re.escape(words[0]) + r" .*\b" + command, text, re.IGNORECASE
    )
    return "" if usage else f"no command {command}"
