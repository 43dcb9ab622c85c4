#!/usr/bin/env bash
# Purpose: compares the kinds of distillation on Multi30k: gold only; word level with the teacher at work and from its cache
#          (k = 8 and 32); sequence level with 1 best, K best and interpolation; both levels. One teacher, the same students.
# Inputs:  further arguments go to run_all.sh. SEEDS="1 2 3": seeds of the students (default 1). JOBS: students that train
#          at a time (default: one for each core). LONG=1: 20,000 updates and three seeds, for a GPU. The text: bash data/download.sh multi30k
# Outputs: $WORK_DIR/report/report.md (default WORK_DIR: runs/distillation-multi30k-en-cs, with LONG=1 ...-long), which is
#          printed at the end. After an interruption the same command goes on.
# Example: SEEDS="1 2 3" bash scripts/experiments/distillation.sh
# shellcheck source=scripts/lib/experiment.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/experiment.sh"

compare_students distillation-multi30k-en-cs "$@"
