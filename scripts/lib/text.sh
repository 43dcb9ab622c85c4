# shellcheck shell=bash
# Purpose: the steps between text, pieces and binarized data that several stages share.
# Inputs:  $WORK_DIR/vocabulary and the text named.
# Outputs: those named by the caller.
# Example: encode_step encode-train-en "$WORK_DIR/prepared/train/text.en" "$WORK_DIR/encoded/train.en"

# encode_step NAME TEXT OUTPUT: a line of text -> a line of sentencepiece pieces.
encode_step() {
    local model=$WORK_DIR/vocabulary/spm.model
    run_step "$1" "$3" --in "$2" --in "$model" --check "check_same_lines $2" -- \
        "$FC_BIN/fairseq-compress" encode --model "$model" --input "$2" --output @OUT@
}

# binarize_step NAME OUTPUT [options of run_step] --trainpref PREFIX ...: both languages with the vocabulary's dictionary.
# fairseq-preprocess appends a log with the time of day to its folder; out with it, the same data is the same folder.
binarize_step() {
    local name=$1 output=$2 dictionary=$WORK_DIR/vocabulary/spm.dict.txt options=()
    shift 2
    while [[ $1 != --trainpref ]]; do
        options+=("$1")
        shift
    done
    run_step "$name" "$output" "${options[@]}" --in "$dictionary" --log -- \
        "$FC_BIN/fairseq-preprocess" --source-lang "$SOURCE_LANG" --target-lang "$TARGET_LANG" "$@" \
        --srcdict "$dictionary" --joined-dictionary --workers "$WORKERS" --destdir @OUT@
}

# collect_step NAME LOG SOURCE_TEXT OUTPUT: fairseq-generate's output -> one line of text for each line of SOURCE_TEXT.
collect_step() {
    local name=$1 log=$2 source_text=$3 output=$4 pieces=${4%.*}.pieces
    run_step "collect-$name" "$pieces" --in "$log" --in "$source_text" --check "check_same_lines $source_text" -- \
        "$FC_BIN/fairseq-compress" collect-hypotheses --input "$log" --source "$source_text" --output @OUT@
    run_step "decode-$name" "$output" --in "$pieces" --in "$WORK_DIR/vocabulary/spm.model" \
        --check "check_same_lines $source_text" -- \
        "$FC_BIN/fairseq-compress" decode --model "$WORK_DIR/vocabulary/spm.model" --input "$pieces" --output @OUT@
}
