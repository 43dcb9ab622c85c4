# shellcheck shell=bash
# Purpose: the steps of sequence-level distillation: the teacher's n-best translations and the training data selected from them.
# Inputs:  $WORK_DIR/prepared/train, $WORK_DIR/encoded, $WORK_DIR/vocabulary, $WORK_DIR/bin, $WORK_DIR/teacher/averaged.pt and
#          the KD_ settings.
# Outputs: $WORK_DIR/kd, $WORK_DIR/bin-KIND
# Example: nbest_steps; corpus_steps kd --mode best

# nbest_steps: the teacher translates the training text, as detokenized text, which is then segmented again like all other training
# text: the subwords of a hypothesis can differ from the sentencepiece segmentation of the same words.
nbest_steps() {
    local text=$WORK_DIR/prepared/train/text.$SOURCE_LANG pieces=$WORK_DIR/encoded/train.$SOURCE_LANG
    local teacher=$WORK_DIR/teacher/averaged.pt model=$WORK_DIR/vocabulary/spm.model
    local hypotheses=$((KD_NBEST == 0 ? KD_BEAM : KD_NBEST))
    work_arguments
    run_step nbest "$WORK_DIR/kd/nbest" --in "$text" --in "$teacher" --in "$model" --folder --resume --log \
        "${MACHINE_ARGUMENTS[@]}" -- \
        "$FC_BIN/fairseq-compress" nbest --checkpoint "$teacher" --data "$WORK_DIR/bin" --sentencepiece-model "$model" \
        --source "$text" --output @OUT@/train.nbest --beam "$KD_BEAM" --nbest "$hypotheses" --lenpen "$LENGTH_PENALTY" \
        --max-len-a "$MAX_LEN_A" --max-len-b "$MAX_LEN_B" --max-tokens "$KD_MAX_TOKENS" --precision "$DECODING_PRECISION" \
        --long-lines skip
    run_step encode-hypotheses "$WORK_DIR/kd/pieces" --in "$WORK_DIR/kd/nbest" --in "$text" --in "$pieces" --in "$model" \
        --folder -- \
        "$FC_BIN/fairseq-compress" kd-data encode --sentencepiece-model "$model" --nbest "$WORK_DIR/kd/nbest/train.nbest" \
        --source "$text" --pieces "$pieces" --output @OUT@/train.nbest
}

# reverse_step: a reverse model with the same vocabulary computes the probability of each source given each hypothesis.
reverse_step() {
    local pieces=$WORK_DIR/encoded/train.$SOURCE_LANG
    work_arguments
    run_step score-nbest "$WORK_DIR/kd/reverse" --in "$WORK_DIR/kd/pieces" --in "$pieces" --in "$KD_REVERSE_CHECKPOINT" \
        --folder --resume --log "${MACHINE_ARGUMENTS[@]}" -- \
        "$FC_BIN/fairseq-compress" kd-data score --checkpoint "$KD_REVERSE_CHECKPOINT" --data "$WORK_DIR/bin" \
        --nbest "$WORK_DIR/kd/pieces/train.nbest" --source "$pieces" --output @OUT@/scores \
        --max-tokens "$KD_MAX_TOKENS" --precision "$SCORING_PRECISION"
}

# corpus_steps KIND OPTION...: selects data with kd-data select and these options, and binarizes it to bin-KIND.
corpus_steps() {
    local kind=$1 folder=$WORK_DIR/kd/$1 output=$WORK_DIR/bin-$1
    select_step "$@"
    if [[ $kind == k-best ]]; then output=$WORK_DIR/kd/bin-k-best; fi
    binarize_step "binarize-$kind" "$output" --in "$folder" --in "$WORK_DIR/encoded/valid.$SOURCE_LANG" \
        --in "$WORK_DIR/encoded/valid.$TARGET_LANG" --check check_kd_splits --check "$folder/train.$SOURCE_LANG" \
        --trainpref "$folder/train" --validpref "$WORK_DIR/encoded/valid"
    if [[ $kind == k-best ]]; then
        run_step binarize-hypotheses "$WORK_DIR/bin-k-best" --in "$output" --in "$folder" -- \
            bash "$LIB/extend_folder.sh" "$output" @OUT@ \
            "$FC_BIN/fairseq-compress" kd-data binarize --nbest "$folder/train.nbest" --source "$folder/train.$SOURCE_LANG" \
            --source-lang "$SOURCE_LANG" --target-lang "$TARGET_LANG" --data @OUT@
    fi
}

# select_step KIND OPTION...
select_step() {
    local kind=$1 options=("${@:2}") pieces=$WORK_DIR/encoded/train.$SOURCE_LANG model=$WORK_DIR/vocabulary/spm.model
    local reference=$WORK_DIR/prepared/train/text.$TARGET_LANG inputs
    inputs=(--in "$WORK_DIR/kd/pieces" --in "$pieces" --in "$model")
    case $kind in
        interpolated) options+=(--reference "$reference") && inputs+=(--in "$reference") ;;
        k-best) options+=(--output-nbest @OUT@/train.nbest) ;;
    esac
    if drops_worst; then
        options+=(--drop-worst "$KD_DROP_WORST" --reverse-scores "$WORK_DIR/kd/reverse/scores")
        inputs+=(--in "$WORK_DIR/kd/reverse")
    fi
    run_step "select-$kind" "$WORK_DIR/kd/$kind" "${inputs[@]}" --folder --check check_selected \
        --unhashed --processes --unhashed "$WORKERS" -- \
        "$FC_BIN/fairseq-compress" kd-data select --nbest "$WORK_DIR/kd/pieces/train.nbest" --source "$pieces" \
        --sentencepiece-model "$model" "${options[@]}" --output-source "@OUT@/train.$SOURCE_LANG" \
        --output-target "@OUT@/train.$TARGET_LANG" --report @OUT@/report.json
}

# drops_worst: pairs are filtered by a reverse model.
drops_worst() { [[ $KD_DROP_WORST =~ [1-9] ]]; }

check_selected() { check_same_lines "$1/train.$SOURCE_LANG" "$1/train.$TARGET_LANG"; }

# check_kd_splits SOURCE FOLDER: no sentence was lost between the selected text and FOLDER. The report of kd-data select lists the
# dropped pairs and the reasons.
check_kd_splits() {
    check_binarized train "$1" "$2"
    check_binarized valid "$WORK_DIR/encoded/valid.$SOURCE_LANG" "$2"
}
