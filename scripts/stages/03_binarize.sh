#!/usr/bin/env bash
# Purpose: cuts every split into pieces and binarizes it with the one dictionary of the vocabulary.
# Inputs:  $WORK_DIR/prepared, $WORK_DIR/vocabulary
# Outputs: $WORK_DIR/encoded/{train,valid,test}.LANG, $WORK_DIR/bin
# Example: bash scripts/stages/03_binarize.sh configs/demo-en-cs.env
# shellcheck source=scripts/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
stage_begin "$@"

inputs=()
for split in train valid test; do
    for lang in "$SOURCE_LANG" "$TARGET_LANG"; do
        encode_step "encode-$split-$lang" "$WORK_DIR/prepared/$split/text.$lang" "$WORK_DIR/encoded/$split.$lang"
        inputs+=(--in "$WORK_DIR/encoded/$split.$lang")
    done
done

if [[ $DRY_RUN == 0 ]]; then
    for split in valid test; do check_pieces "$WORK_DIR/encoded/$split".{"$SOURCE_LANG","$TARGET_LANG"}; done
    tell_long_pairs "$WORK_DIR/encoded/train".{"$SOURCE_LANG","$TARGET_LANG"}
fi

check_splits() {
    for split in train valid test; do check_binarized "$split" "$WORK_DIR/encoded/$split.$SOURCE_LANG" "$1"; done
}

binarize_step binarize "$WORK_DIR/bin" "${inputs[@]}" --check check_splits \
    --trainpref "$WORK_DIR/encoded/train" --validpref "$WORK_DIR/encoded/valid" --testpref "$WORK_DIR/encoded/test"
