#!/usr/bin/env bash
# Purpose: compares students with small vocabularies on Multi30k, trained alone and together with a teacher of 8,000 pieces: dual
#          training, with projection losses, with word-level distillation between the segmentations. BLEU, chrF2, bytes, and
#          the share of the embeddings in them.
# Inputs:  further arguments go to run_all.sh. SEEDS="1 2 3": seeds of the students (default 1). JOBS: students that train
#          at a time (default: one for each core). LONG=1: 20,000 updates and three seeds, for a GPU. The text: bash data/download.sh multi30k
# Outputs: $WORK_DIR/report/report.md (default WORK_DIR: runs/dual-vocabulary-multi30k-en-cs, with LONG=1 ...-long), which is
#          printed at the end. After an interruption the same command goes on.
# Example: SEEDS="1 2 3" bash scripts/experiments/dual_vocabulary.sh
# shellcheck source=scripts/lib/experiment.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/experiment.sh"

compare_students dual-vocabulary-multi30k-en-cs "$@"
