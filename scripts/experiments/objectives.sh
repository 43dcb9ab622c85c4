#!/usr/bin/env bash
# Purpose: compares the objectives of distillation on Multi30k: the triple loss with its ablations and a random start; feature
#          and attention maps, and their schedules; selected tokens, TIE-KD, align-to-distill; samples of the student with three
#          divergences; teachers with dropout and ensembles. One teacher, the same students, against word-level KD.
# Inputs:  further arguments go to run_all.sh. SEEDS="1 2 3": seeds of the students (default 1). JOBS: students that train
#          at a time (default: one for each core). LONG=1: 20,000 updates and three seeds, for a GPU. The text: bash data/download.sh multi30k
# Outputs: $WORK_DIR/report/report.md (default WORK_DIR: runs/objectives-multi30k-en-cs, with LONG=1 ...-long), which is printed at
#          the end. After an interruption the same command goes on.
# Example: SEEDS="1 2 3" bash scripts/experiments/objectives.sh
# shellcheck source=scripts/lib/experiment.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/experiment.sh"

compare_students objectives-multi30k-en-cs "$@"
