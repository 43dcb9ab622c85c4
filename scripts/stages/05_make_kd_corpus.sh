#!/usr/bin/env bash
# Purpose: makes the corpus of sequence-level distillation (arXiv:1606.07947): the training text with the translations of
#          the teacher's beam search as targets. Nothing to do when no student learns from it.
# Inputs:  $WORK_DIR/bin, $WORK_DIR/teacher/averaged.pt, $WORK_DIR/encoded
# Outputs: $WORK_DIR/kd (parts, their translations, train.LANG), $WORK_DIR/bin-kd, $WORK_DIR/bin-both
# Example: bash scripts/stages/05_make_kd_corpus.sh configs/demo-en-cs.env
# shellcheck source=scripts/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
stage_begin "$@"

kd=$WORK_DIR/kd
source_text=$WORK_DIR/encoded/train.$SOURCE_LANG
target_text=$WORK_DIR/encoded/train.$TARGET_LANG
kinds=
list_kind() { kinds+=" $STUDENT_DATA "; }
for_each_student list_kind
if [[ $kinds != *kd* && $kinds != *both* ]]; then
    say "skip make-kd-corpus (no student learns from it)"
    exit 0
fi

# The text is translated in parts, each a step of its own, so that a restart repeats one part at most. (--num-shards of
# fairseq-generate is no help: this fairseq ignores it, and every shard translates the whole text.)
parts=()
for ((part = 0; part < KD_SHARDS; part++)); do parts+=("$kd/parts/part$part"); done
run_step split-train "$kd/parts" --in "$source_text" --in "$target_text" -- \
    bash "$LIB/split_lines.sh" "$KD_SHARDS" @OUT@ "$source_text" "$target_text"

# As test parts, fairseq-preprocess calls them test, test1, test2, ...
binarize_step binarize-parts "$kd/bin-parts" --in "$kd/parts" --testpref "$(IFS=, && echo "${parts[*]}")"

texts=() inputs=()
for ((part = 0; part < KD_SHARDS; part++)); do
    translate_step "train-part$part" "$kd/bin-parts" "test${part#0}" "$WORK_DIR/teacher/averaged.pt" "$KD_BEAM" \
        "$KD_MAX_TOKENS" "${parts[part]}.$SOURCE_LANG" "$kd/translations/part$part"
    texts+=("$kd/translations/part$part.$TARGET_LANG")
    inputs+=(--in "$kd/translations/part$part.$TARGET_LANG")
done
run_step join-parts "$kd/text.$TARGET_LANG" "${inputs[@]}" --stdout -- cat "${texts[@]}"
encode_step "encode-kd-$TARGET_LANG" "$kd/text.$TARGET_LANG" "$kd/train.$TARGET_LANG"
run_step copy-kd-source "$kd/train.$SOURCE_LANG" --in "$source_text" -- cp "$source_text" @OUT@
check_same_lines "$source_text" "$kd/train.$SOURCE_LANG" "$kd/train.$TARGET_LANG"

check_splits() {
    check_binarized train "$kd/train.$SOURCE_LANG" "$1"
    check_binarized valid "$WORK_DIR/encoded/valid.$SOURCE_LANG" "$1"
}

binarize_step binarize-kd "$WORK_DIR/bin-kd" --in "$kd/train.$SOURCE_LANG" --in "$kd/train.$TARGET_LANG" \
    --in "$WORK_DIR/encoded/valid.$SOURCE_LANG" --in "$WORK_DIR/encoded/valid.$TARGET_LANG" --check check_splits \
    --trainpref "$kd/train" --validpref "$WORK_DIR/encoded/valid"
if [[ $kinds == *both* ]]; then
    run_step join-corpora "$WORK_DIR/bin-both" --in "$WORK_DIR/bin" --in "$WORK_DIR/bin-kd" --folder -- \
        bash "$LIB/join_corpora.sh" "$WORK_DIR/bin" "$WORK_DIR/bin-kd" @OUT@
fi
