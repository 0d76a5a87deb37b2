#!/usr/bin/env bash
# All checks of the project, with their own set-up: lint, types, import rules, tests.
#   bash tests/run.sh [PYTEST ARGUMENTS]
set -euo pipefail
cd "$(dirname "$0")/.."
[ -x .venv/bin/python ] || python3 -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-dev.txt -e '.[dev]'
PATH=$PWD/.venv/bin:$PATH
ruff check .
ruff format --check .
mypy
lint-imports
export OMP_NUM_THREADS=1 # a worker per core already; more threads wait for each other, spinning
pytest -m 'not cluster and not slow and not examples' -n auto --maxprocesses 4 "$@"
