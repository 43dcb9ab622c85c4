#!/usr/bin/env bash
# Purpose: sets up everything, then checks the style and runs all tests. The end of pytest's output is the end of this one's.
# Inputs:  further arguments go to pytest. Outputs: exit status 0 when everything passes.
# Example: bash scripts/test.sh
#          bash scripts/test.sh -k word_level_kd
# shellcheck source=scripts/lib/process.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/process.sh"
cd "$ROOT"
bash scripts/bootstrap.sh

export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # small tensors: threads would only wait for each other
export WANDB_MODE=offline PYTHONDONTWRITEBYTECODE=1

check() {
    "${@:2}" || die "$1 found something to mend"
}

readarray -t shell_files < <(find scripts data .ci -name '*.sh' -o -path '.ci/run' | sort)
check ruff .venv/bin/ruff check --quiet .
check "ruff format" .venv/bin/ruff format --quiet --check .
check mypy .venv/bin/mypy --no-error-summary
check shellcheck .venv/bin/shellcheck -x "${shell_files[@]}" configs/*.env configs/*/*.env
# A file of tests in one process: its fixtures are made once. In the order of the folders, so that integration, the longest,
# comes first. -n 0 in the arguments runs all in this one.
exec .venv/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder "$@"
