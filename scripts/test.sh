#!/usr/bin/env bash
# Purpose: installs the project, then runs the linters and all tests. The output ends with pytest's summary.
# Inputs:  further arguments are passed to pytest. Outputs: exit status 0 if everything passes.
# Example: bash scripts/test.sh
#          bash scripts/test.sh -k word_level_kd
# shellcheck source=scripts/lib/process.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/process.sh"
cd "$ROOT"
bash scripts/bootstrap.sh

export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # the tensors of the tests are too small for several threads
export WANDB_MODE=offline PYTHONDONTWRITEBYTECODE=1

# The page's tests need its engine; without it they are skipped with a reason.
bash web/fetch_engine.sh || say "web/fetch_engine.sh failed: the tests of web/ are skipped"

check() {
    "${@:2}" || die "$1 found something to mend"
}

readarray -t shell_files < <(find scripts data web .ci -name '*.sh' -o -path '.ci/run' | sort)
check ruff .venv/bin/ruff check --quiet .
check "ruff format" .venv/bin/ruff format --quiet --check .
check mypy .venv/bin/mypy --no-error-summary
check shellcheck .venv/bin/shellcheck -x "${shell_files[@]}" configs/*.env configs/*/*.env
# All tests of a file run in one process and share its fixtures. Files run in the order of the folders: the integration tests, which
# take longest, come first. Pass -n 0 to run all tests in this process.
exec .venv/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder "$@"
