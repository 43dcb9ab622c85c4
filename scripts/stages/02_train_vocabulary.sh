#!/usr/bin/env bash
# Purpose: trains one sentencepiece BPE vocabulary on both sides of the training text, and one more for each vocabulary size in the
#          rows of STUDENTS (gold@1000).
# Inputs:  $WORK_DIR/prepared/train/text.LANG
# Outputs: $WORK_DIR/vocabulary/spm.{model,vocab,dict.txt}; $WORK_DIR/vocabulary-1000 ...
# Example: bash scripts/stages/02_train_vocabulary.sh configs/demo-en-cs.env
# shellcheck source=scripts/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
stage_begin "$@"

source_text=$WORK_DIR/prepared/train/text.$SOURCE_LANG
target_text=$WORK_DIR/prepared/train/text.$TARGET_LANG
options=()
if ((VOCAB_SENTENCES > 0)); then options=(--input-sentence-size "$VOCAB_SENTENCES"); fi

# vocabulary_step NAME OUTPUT SIZE
vocabulary_step() {
    run_step "$1" "$2" --in "$source_text" --in "$target_text" --folder -- \
        "$FC_BIN/fairseq-compress" train-vocabulary --input "$source_text" "$target_text" --vocab-size "$3" \
        --character-coverage "$CHARACTER_COVERAGE" --seed "$SEED" "${options[@]}" --output @OUT@/spm
}

vocabulary_step train-vocabulary "$WORK_DIR/vocabulary" "$VOCAB_SIZE"
list_sizes
for size in "${SIZES[@]}"; do vocabulary_step "train-vocabulary-$size" "$(vocabulary_folder "$size")" "$size"; done
