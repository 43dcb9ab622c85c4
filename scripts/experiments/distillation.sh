#!/usr/bin/env bash
# Purpose: compares kinds of distillation on Multi30k: no distillation; word-level KD with an online teacher and from its cache
#          (K = 8 and 32); sequence-level KD with 1-best, K-best and interpolation; both levels. One teacher, one student
#          architecture.
# Inputs:  the text of bash data/download.sh multi30k. Further arguments are passed to run_all.sh.
#          SEEDS="1 2 3": seeds of the students (default: 1). JOBS: number of students trained in parallel (default: the number of
#          cores). LONG=1: 20,000 updates and three seeds, for a GPU.
# Outputs: $WORK_DIR/report/report.md (default WORK_DIR: runs/distillation-multi30k-en-cs, with LONG=1 ...-long), which is
#          printed at the end. Repeat the command to resume an interrupted run.
# Example: SEEDS="1 2 3" bash scripts/experiments/distillation.sh
# shellcheck source=scripts/lib/experiment.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/experiment.sh"

compare_students distillation-multi30k-en-cs "$@"
