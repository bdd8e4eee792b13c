#!/usr/bin/env bash
# Creates the virtual environment of all make targets from the hashed lock.
# usage: scripts/setup.sh [folder]          PYTHON=... chooses the interpreter
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv}

candidates=${PYTHON:-python3.13 python3.12 python3.11 python3}

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

# A name on PATH can be a shim without a target, so each candidate is run.
find_python() {
    local candidate
    for candidate in $candidates; do
        if is_new_enough "$candidate"; then
            "$candidate" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    echo "setup: no Python >= 3.11 found; tried $candidates" >&2
    echo "setup: install one, or name it: make setup PYTHON=/path/to/python" >&2
    return 1
}

python=$(find_python)
if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    echo "setup: $python has no venv or ensurepip" >&2
    echo "setup: on Debian and Ubuntu: apt-get install python${version}-venv" >&2
    exit 1
fi

# An environment that was moved, is incomplete or has an older Python is created again.
if ! is_new_enough "$venv/bin/python" || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    echo "setup: creating $venv with $("$python" --version) ($python)"
    "$python" -m venv --clear "$venv"
fi

count=$(grep -c '^[a-z0-9].*==' requirements/dev.txt)
echo "setup: installing $count pinned packages (about a minute the first time)"
"$venv/bin/python" -m pip install --require-hashes -r requirements/dev.txt
# One path in a .pth file: see pyproject.toml.
"$venv/bin/python" -m pip install --quiet --no-deps --no-build-isolation --editable .
# Starts are measured: bytecode must exist even with PYTHONDONTWRITEBYTECODE.
"$venv/bin/python" -m compileall -q chaos events functions shop tools
echo "setup: done"
