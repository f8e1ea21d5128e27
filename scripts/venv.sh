#!/bin/sh
# Brings .venv in line with a lock file: scripts/venv.sh requirements.txt
#
# Uses $PYTHON, or the first Python on PATH that is new enough and can make a virtual environment.
set -eu
lock=$1
cd "$(dirname "$0")/.."

usable() {
    "$1" -c 'import ensurepip, sqlite3, ssl, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3}; do
        if usable "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    echo "headrace needs Python 3.11 or newer with venv: tried ${PYTHON:-python3.13 python3.12 python3.11 python3}." >&2
    echo "Install one (Debian, Ubuntu: apt-get install python3-venv) or name one: make PYTHON=/path/to/python3" >&2
    exit 1
}

# pip knows the user's mirrors and proxies, uv does not read its files: with any of them set, pip does the work.
install() {
    if [ -x .venv/bin/uv ] && ! .venv/bin/python -m pip config list | grep -q index; then
        .venv/bin/uv pip install --quiet --system-certs --python .venv/bin/python "$@" && return
        echo "uv could not install; trying pip" >&2
    fi
    .venv/bin/python -m pip install --quiet --disable-pip-version-check "$@"
}

# Scripts in a virtual environment hold its absolute path: one that was moved or copied starts anew.
if [ "$(cat .venv/origin 2>/dev/null)" != "$(pwd -P)" ] || ! usable .venv/bin/python; then
    python=$(find_python)
    echo "Setting up .venv with $("$python" --version), once; needs the network" >&2
    "$python" -m venv --clear .venv
    # Ten seconds with uv, forty with pip. No wheel of it for this machine: pip does all.
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --only-binary :all: \
        --require-hashes -r requirements-build.txt || echo "going on without uv" >&2
    pwd -P > .venv/origin
fi
echo "Installing $lock" >&2
install --require-hashes -r "$lock"
# flit-core comes with the lock: nothing is built with anything unpinned.
install --no-deps --no-build-isolation -e .
