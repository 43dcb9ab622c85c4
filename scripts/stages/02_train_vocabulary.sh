#!/usr/bin/env bash
# Purpose: learns one sentencepiece BPE vocabulary from both sides of the training text.
# Inputs:  $WORK_DIR/prepared/train/text.LANG
# Outputs: $WORK_DIR/vocabulary/spm.{model,vocab,dict.txt}
# Example: bash scripts/stages/02_train_vocabulary.sh configs/demo-en-cs.env
# shellcheck source=scripts/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
stage_begin "$@"

source_text=$WORK_DIR/prepared/train/text.$SOURCE_LANG
target_text=$WORK_DIR/prepared/train/text.$TARGET_LANG
options=()
if ((VOCAB_SENTENCES > 0)); then options=(--input-sentence-size "$VOCAB_SENTENCES"); fi

run_step train-vocabulary "$WORK_DIR/vocabulary" --in "$source_text" --in "$target_text" --folder -- \
    "$FC_BIN/fairseq-compress" train-vocabulary --input "$source_text" "$target_text" --vocab-size "$VOCAB_SIZE" \
    --character-coverage "$CHARACTER_COVERAGE" --seed "$SEED" "${options[@]}" --output-prefix @OUT@/spm
