#!/usr/bin/env bash
# All checks of tests/run.sh with whatever is newest, not the versions of constraints.txt: what will break next?
#   bash tests/newest.sh [PYTEST ARGUMENTS]
# Without a GPU, torch's build for CPUs saves gigabytes. Put it there first, and it stays:
#   python3 -m venv .venv-newest
#   .venv-newest/bin/python -m pip install --upgrade torch --index-url https://download.pytorch.org/whl/cpu
set -euo pipefail
VENV=.venv-newest CONSTRAINTS='' bash "$(dirname "$0")/run.sh" "$@"
