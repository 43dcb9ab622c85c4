#!/usr/bin/env bash
# Purpose: runs fairseq's own tests, from a clone of fairseq, on the installed fairseq-fixed: without this plugin and with it.
#          Shows which tests pass with the plugin only, and which pass without it only. Each file is a process of its own.
# Inputs:  CHECKOUT: a clone of fairseq, of which only tests/ and scripts/ are read. Further arguments: files
#          of its tests/ or FILE::CLASS; by default TestTranslation of test_binaries.py and all other tests/test_*.py.
#          LIMIT: seconds for a file (default 1800). JOBS: files at a time (default: one for each core). About an hour on one core.
# Outputs: $WORK_DIR/fairseq-own-tests.md and .json (default WORK_DIR: runs/fairseq-own-tests); the first is printed at the end.
#          Exit status 1 when a test passes without the plugin and not with it. After an interruption the same command resumes.
# Example: git clone --depth 1 https://github.com/facebookresearch/fairseq.git
#          bash scripts/experiments/fairseq_own_tests.sh fairseq
#          bash scripts/experiments/fairseq_own_tests.sh fairseq test_ema.py test_binaries.py::TestTranslation
# shellcheck source=scripts/lib/process.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/process.sh"

(($# >= 1)) || die "usage: ${0##*/} CHECKOUT [FILE...] (--help explains)"
[[ -f $1/tests/utils.py ]] || die "CHECKOUT must be a clone of fairseq with tests/utils.py, got '$1'"
bash "$ROOT/scripts/bootstrap.sh"

export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec "${DIE_WITH_PARENT[@]}" "$ROOT/.venv/bin/python" "$ROOT/benchmarks/fairseq_own_tests.py" "$@" \
    --output "${WORK_DIR:-$ROOT/runs/fairseq-own-tests}" --limit "${LIMIT:-1800}" --jobs "${JOBS:-$(nproc)}"
