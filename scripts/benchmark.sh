#!/usr/bin/env bash
# Purpose: sets up everything, then measures losses, training steps and the attention against their peers, as ratios.
# Inputs:  none. Outputs: what the benchmarks print, with their marks.
# Example: bash scripts/benchmark.sh
# shellcheck source=scripts/lib/process.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/process.sh"
cd "$ROOT"
bash scripts/bootstrap.sh

for benchmark in kd_loss cached_kd hidden_states training_steps attention; do
    say "== $benchmark"
    "${DIE_WITH_PARENT[@]}" .venv/bin/python "benchmarks/$benchmark.py"
done
