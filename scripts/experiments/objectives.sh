#!/usr/bin/env bash
# Purpose: compares distillation objectives with word-level KD on Multi30k: the triple loss, its ablations and random
#          initialization; feature and attention map losses and their schedules; selective KD, TIE-KD, align-to-distill; on-policy
#          KD with three divergences; teachers with dropout and teacher ensembles. One teacher, one student architecture.
# Inputs:  the text of bash data/download.sh multi30k. Further arguments are passed to run_all.sh.
#          SEEDS="1 2 3": seeds of the students (default: 1). JOBS: number of students trained in parallel (default: the number of
#          cores). LONG=1: 20,000 updates and three seeds, for a GPU.
# Outputs: $WORK_DIR/report/report.md (default WORK_DIR: runs/objectives-multi30k-en-cs, with LONG=1 ...-long), which is printed at
#          the end. Repeat the command to resume an interrupted run.
# Example: SEEDS="1 2 3" bash scripts/experiments/objectives.sh
# shellcheck source=scripts/lib/experiment.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/experiment.sh"

compare_students objectives-multi30k-en-cs "$@"
