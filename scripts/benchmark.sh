#!/usr/bin/env bash
# Purpose: sets up everything, then measures the distillation loss and the attention against their peers, as ratios.
# Inputs:  none. Outputs: what the two benchmarks print.
# Example: bash scripts/benchmark.sh
# shellcheck source=scripts/lib/process.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/process.sh"
cd "$ROOT"
bash scripts/bootstrap.sh

for benchmark in kd_loss attention; do
    say "== $benchmark"
    "${DIE_WITH_PARENT[@]}" .venv/bin/python "tests/benchmarks/$benchmark.py"
done
