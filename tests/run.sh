#!/usr/bin/env bash
# All checks of the project, with their own set-up: lint, types, import rules, tests.
#   bash tests/run.sh [PYTEST ARGUMENTS]
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${VENV:-.venv} constraints=${CONSTRAINTS-constraints.txt} # tests/newest.sh sets them: none is the newest of all
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
if [ -n "$constraints" ]; then how=(-c "$constraints"); else how=(--upgrade --upgrade-strategy eager); fi
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check "${how[@]}" -e '.[dev]'
PATH=$PWD/$venv/bin:$PATH
ruff check .
ruff format --check .
mypy
lint-imports
export OMP_NUM_THREADS=1 # a worker per core already; more threads wait for each other, spinning
pytest -m 'not cluster and not slow and not examples' -n auto --maxprocesses 4 --dist loadscope --no-loadscope-reorder "$@"
