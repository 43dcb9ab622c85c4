#!/usr/bin/env bash
# Purpose: compares students with small vocabularies on Multi30k, trained alone and jointly with a teacher with 8,000 subwords:
#          dual training, with projection losses, with word-level KD across the two segmentations. The report has BLEU, chrF2,
#          bytes, and the fraction of the bytes in the embeddings.
# Inputs:  the text of bash data/download.sh multi30k. Further arguments are passed to run_all.sh.
#          SEEDS="1 2 3": seeds of the students (default: 1). JOBS: number of students trained in parallel (default: the number of
#          cores). LONG=1: 20,000 updates and three seeds, for a GPU.
# Outputs: $WORK_DIR/report/report.md (default WORK_DIR: runs/dual-vocabulary-multi30k-en-cs, with LONG=1 ...-long), which is
#          printed at the end. Repeat the command to resume an interrupted run.
# Example: SEEDS="1 2 3" bash scripts/experiments/dual_vocabulary.sh
# shellcheck source=scripts/lib/experiment.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/experiment.sh"

compare_students dual-vocabulary-multi30k-en-cs "$@"
