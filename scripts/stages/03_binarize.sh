#!/usr/bin/env bash
# Purpose: segments all splits into subwords and binarizes them with the joined dictionary; again for each vocabulary size in the
#          rows of STUDENTS (gold@1000), and in both vocabularies at once for rows with dual_vocab_kd.
# Inputs:  $WORK_DIR/prepared, $WORK_DIR/vocabulary, $WORK_DIR/vocabulary-1000 ...
# Outputs: $WORK_DIR/encoded/{train,valid,test}.LANG, $WORK_DIR/bin; $WORK_DIR/encoded-1000, bin-1000, dual-1000 ...
# Example: bash scripts/stages/03_binarize.sh configs/demo-en-cs.env
# shellcheck source=scripts/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
stage_begin "$@"

# binarize_splits [SIZE]: binarizes all splits with the vocabulary of this size (default: VOCAB_SIZE).
binarize_splits() {
    local suffix=${1:+-$1} split lang inputs=() encoded=$WORK_DIR/encoded${1:+-$1}
    VOCABULARY=$(vocabulary_folder "$1")
    for split in train valid test; do
        for lang in "$SOURCE_LANG" "$TARGET_LANG"; do
            encode_step "encode-$split-$lang$suffix" "$WORK_DIR/prepared/$split/text.$lang" "$encoded/$split.$lang"
            inputs+=(--in "$encoded/$split.$lang")
        done
    done
    if [[ $DRY_RUN == 0 ]]; then
        for split in valid test; do check_pieces "$encoded/$split".{"$SOURCE_LANG","$TARGET_LANG"}; done
        tell_long_pairs "$encoded/train".{"$SOURCE_LANG","$TARGET_LANG"}
    fi
    binarize_step "binarize$suffix" "$WORK_DIR/bin$suffix" "${inputs[@]}" --check check_splits --check "$encoded" \
        --trainpref "$encoded/train" --validpref "$encoded/valid" --testpref "$encoded/test"
}

# check_splits ENCODED FOLDER
check_splits() {
    local split
    for split in train valid test; do check_binarized "$split" "$1/$split.$SOURCE_LANG" "$2"; done
}

# dual_step SIZE: segments each word of the text with both vocabularies, the teacher's and the student's.
dual_step() {
    local teacher student inputs=() split lang
    teacher=$(vocabulary_folder "") student=$(vocabulary_folder "$1")
    for split in train valid; do
        for lang in "$SOURCE_LANG" "$TARGET_LANG"; do inputs+=(--in "$WORK_DIR/prepared/$split/text.$lang"); done
    done
    run_step "encode-dual-$1" "$WORK_DIR/dual-$1" "${inputs[@]}" --in "$teacher" --in "$student" -- \
        "$FC_BIN/fairseq-compress" encode-dual --source-lang "$SOURCE_LANG" --target-lang "$TARGET_LANG" \
        --trainpref "$WORK_DIR/prepared/train/text" --validpref "$WORK_DIR/prepared/valid/text" \
        --teacher-sentencepiece-model "$teacher/spm.model" --teacher-dictionary "$teacher/spm.dict.txt" \
        --student-sentencepiece-model "$student/spm.model" --student-dictionary "$student/spm.dict.txt" --output @OUT@
}

binarize_splits ""
list_sizes
for size in "${SIZES[@]}"; do binarize_splits "$size"; done
for size in "${DUAL_SIZES[@]}"; do dual_step "$size"; done
