# shellcheck shell=bash
# Purpose: steps that several stages share: segment, binarize, translate, score, report.
# Inputs:  VOCABULARY, a folder (default $WORK_DIR/vocabulary), and the text in the arguments.
# Outputs: the paths in the arguments.
# Example: encode_step encode-train-en "$WORK_DIR/prepared/train/text.en" "$WORK_DIR/encoded/train.en"

# encode_step NAME TEXT OUTPUT: segments each line of text into sentencepiece pieces.
encode_step() {
    local model=${VOCABULARY:-$WORK_DIR/vocabulary}/spm.model
    run_step "$1" "$3" --in "$2" --in "$model" --check check_same_lines --check "$2" -- \
        "$FC_BIN/fairseq-compress" encode --sentencepiece-model "$model" --input "$2" --output @OUT@
}

# binarize_step NAME OUTPUT [options of run_step] --trainpref PREFIX ...: binarizes both languages with the joined dictionary.
binarize_step() {
    local name=$1 output=$2 dictionary=${VOCABULARY:-$WORK_DIR/vocabulary}/spm.dict.txt options=()
    shift 2
    while [[ $1 != --trainpref ]]; do
        options+=("$1")
        shift
    done
    run_step "$name" "$output" "${options[@]}" --in "$dictionary" --log -- \
        "$FC_BIN/fairseq-preprocess" --source-lang "$SOURCE_LANG" --target-lang "$TARGET_LANG" "$@" \
        --srcdict "$dictionary" --joined-dictionary --workers "$WORKERS" --destdir @OUT@
}

# translate_step NAME DATA SUBSET CHECKPOINT BEAM MAX_TOKENS SOURCE_TEXT PREFIX: translates SUBSET of DATA, which was made from
# SOURCE_TEXT. PREFIX.LANG has one translation for each line; PREFIX.log has the output of fairseq-generate and its speed.
translate_step() {
    local name=$1 data=$2 checkpoint=$4 source_text=$7 prefix=$8 model=${VOCABULARY:-$WORK_DIR/vocabulary}/spm.model
    generate_command "$data" "$3" "$checkpoint" "$5" "$6"
    run_step "translate-$name" "$prefix.log" --in "$data" --in "$checkpoint" --stdout --log \
        "${MACHINE_ARGUMENTS[@]}" --check note_hardware -- "${COMMAND[@]}"
    run_step "collect-$name" "$prefix.pieces" --in "$prefix.log" --in "$source_text" \
        --check check_same_lines --check "$source_text" -- \
        "$FC_BIN/fairseq-compress" kd-data collect --input "$prefix.log" --source "$source_text" --output @OUT@
    run_step "decode-$name" "$prefix.$TARGET_LANG" --in "$prefix.pieces" --in "$model" \
        --check check_same_lines --check "$source_text" -- \
        "$FC_BIN/fairseq-compress" decode --sentencepiece-model "$model" --input "$prefix.pieces" --output @OUT@
}

# note_hardware TRANSLATIONS: appends the name of the machine that translated; the scores may be computed on another machine.
note_hardware() {
    [[ -n $(noted seconds "$1") ]] || die "$1 does not tell how long the translation took"
    printf '# hardware: %s\n' "$(hardware_name)" >>"$1"
}

# noted KEY LOG: prints a value at the end of a translation's log: seconds of each timing, number of timed sentences, hardware.
noted() { sed -n "s/^# $1: //p" "$2" | tail -n 1; }

# score_step NAME CHECKPOINT BASELINE KEY=VALUE...: scores a translation of the test set and writes the scores, the size of the
# model and the metadata KEY=VALUE to $WORK_DIR/translations/NAME.json. BASELINE is the system to test against, or empty.
score_step() {
    local name=$1 checkpoint=$2 log=$WORK_DIR/translations/$1.log seconds=(SECONDS_IN_LOG) hardware=HARDWARE_IN_LOG
    local sentences=SENTENCES_IN_LOG
    local hypothesis=$WORK_DIR/translations/$name.$TARGET_LANG
    local source_text=$WORK_DIR/prepared/test/text.$SOURCE_LANG reference=$WORK_DIR/prepared/test/text.$TARGET_LANG
    local inputs=(--in "$hypothesis" --in "$reference" --in "$source_text" --in "$checkpoint") options=()
    if [[ -n $3 ]]; then
        options=(--baseline "$WORK_DIR/translations/$3.$TARGET_LANG")
        inputs+=(--in "${options[1]}")
    fi
    if ((COST_TOKENS > 0)) && [[ $checkpoint != "$WORK_DIR/exported/"* ]]; then options+=(--cost-tokens "$COST_TOKENS"); fi
    shift 3
    if [[ $DRY_RUN == 0 ]]; then
        require_inputs "score-$name" "$log"
        read -ra seconds <<<"$(noted seconds "$log")"
        sentences=$(noted sentences "$log")
        hardware=$(noted hardware "$log")
    fi
    run_step "score-$name" "$WORK_DIR/translations/$name.json" "${inputs[@]}" -- \
        "$FC_BIN/fairseq-compress" score --name "$name" \
        --hypothesis "$hypothesis" --reference "$reference" --source "$source_text" "${options[@]}" --output @OUT@ \
        --source-lang "$SOURCE_LANG" --target-lang "$TARGET_LANG" \
        --checkpoint "$checkpoint" --translation-seconds "${seconds[@]}" --timed-sentences "$sentences" \
        --set "$@" "beam=$BEAM" "hardware=$hardware"
}

# report_step SCORES...: writes $WORK_DIR/report: a page with a table of all systems (with BASELINE also means over seeds), a
# picture, and the numbers as JSON.
report_step() {
    local inputs=() file options=(--title "${REPORT_TITLE:-$NAME: $SOURCE_LANG to $TARGET_LANG}")
    for file in "$@"; do inputs+=(--in "$file"); done
    if [[ -n $REPORT_NOTE ]]; then options+=(--note "$REPORT_NOTE"); fi
    run_step report "$WORK_DIR/report" "${inputs[@]}" -- \
        "$FC_BIN/fairseq-compress" report --scores "$@" --output @OUT@ "${options[@]}"
    if [[ $DRY_RUN == 0 ]]; then say "report: $WORK_DIR/report/report.md"; fi
}
