#!/usr/bin/env bash
# Purpose: installs the project, then benchmarks losses, training steps and attention against reference implementations. Times are
#          reported as ratios.
# Inputs:  none. Outputs: the results of the benchmarks on the standard output, with the targets that they must meet.
# Example: bash scripts/benchmark.sh
# shellcheck source=scripts/lib/process.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/process.sh"
cd "$ROOT"
bash scripts/bootstrap.sh

for benchmark in kd_loss cached_kd hidden_states training_steps attention; do
    say "== $benchmark"
    "${DIE_WITH_PARENT[@]}" .venv/bin/python "benchmarks/$benchmark.py"
done
