#!/usr/bin/env bash
# Purpose: makes the corpus of sequence-level distillation (arXiv:1606.07947): the training text with the translations of
#          the teacher's beam search as targets. Nothing to do when no student learns from it.
# Inputs:  $WORK_DIR/bin, $WORK_DIR/teacher/averaged.pt, $WORK_DIR/encoded
# Outputs: $WORK_DIR/kd/{generate.*.log,train.LANG}, $WORK_DIR/bin-kd, $WORK_DIR/bin-both
# Example: bash scripts/stages/05_make_kd_corpus.sh configs/demo-en-cs.env
# shellcheck source=scripts/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
stage_begin "$@"

kd=$WORK_DIR/kd
source_text=$WORK_DIR/encoded/train.$SOURCE_LANG
kinds=
list_kind() { kinds+=" $STUDENT_DATA "; }
for_each_student list_kind
if [[ $kinds != *kd* && $kinds != *both* ]]; then
    say "skip make-kd-corpus (no student learns from it)"
    exit 0
fi

# fairseq deals the batches out to the shards in turn; the numbers of the sentences stay those of the whole text.
logs=() inputs=()
for ((shard = 0; shard < KD_SHARDS; shard++)); do
    log=$kd/generate.$shard-of-$KD_SHARDS.log
    generate_command "$WORK_DIR/bin" train "$WORK_DIR/teacher/averaged.pt" "$KD_BEAM" "$KD_MAX_TOKENS"
    run_step "translate-train-$shard" "$log" --in "$WORK_DIR/bin" --in "$WORK_DIR/teacher/averaged.pt" --stdout -- \
        "${COMMAND[@]}" --num-shards "$KD_SHARDS" --shard-id "$shard"
    logs+=("$log")
    inputs+=(--in "$log")
done

run_step join-translations "$kd/generate.log" "${inputs[@]}" --stdout -- cat "${logs[@]}"
collect_step kd "$kd/generate.log" "$WORK_DIR/prepared/train/text.$SOURCE_LANG" "$kd/text.$TARGET_LANG"
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
