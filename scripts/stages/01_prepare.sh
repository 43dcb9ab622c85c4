#!/usr/bin/env bash
# Purpose: checks the whole configuration, generates the raw text if GENERATE is set, and cleans it: training text is normalized,
#          filtered and deduplicated; validation and test text is normalized only.
# Inputs:  the files of TRAIN_PREFIXES, VALID_PREFIX and TEST_PREFIX in both languages; or the script GENERATE.
# Outputs: $WORK_DIR/prepared/{train,valid,test}/text.LANG and report.json
# Example: bash scripts/stages/01_prepare.sh configs/demo-en-cs.env
# shellcheck source=scripts/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
NEEDS_RAW_TEXT=1
stage_begin "$@"

if ((${#GENERATE[@]} > 0)); then
    inputs=()
    for file in "${GENERATE_INPUTS[@]}"; do inputs+=(--in "$file"); done
    run_step generate-corpus "$RAW_DIR" "${inputs[@]}" -- "$FC_BIN/python" "${GENERATE[@]}"
fi

# check_prepared RAW FOLDER: both sides have equally many lines; unless RAW is "filtered", as many as RAW.
check_prepared() {
    check_same_lines "$2/text.$SOURCE_LANG" "$2/text.$TARGET_LANG"
    [[ $1 == filtered ]] || check_same_lines "$1" "$2/text.$SOURCE_LANG"
}

# prepare SPLIT PREFIX...: the corpora of several prefixes are concatenated.
prepare() {
    local split=$1 source=() target=() inputs=() options=(--max-words "$MAX_WORDS") unfiltered=$2.$SOURCE_LANG prefix
    shift
    if [[ $split == train ]]; then
        options+=(--max-ratio "$MAX_RATIO")
        unfiltered=filtered
    else
        options+=(--no-filter)
    fi
    for prefix in "$@"; do
        source+=("$prefix.$SOURCE_LANG")
        target+=("$prefix.$TARGET_LANG")
        inputs+=(--in "$prefix.$SOURCE_LANG" --in "$prefix.$TARGET_LANG")
    done
    run_step "prepare-$split" "$WORK_DIR/prepared/$split" "${inputs[@]}" --folder \
        --check check_prepared --check "$unfiltered" -- \
        "$FC_BIN/fairseq-compress" prepare --source-lang "$SOURCE_LANG" --target-lang "$TARGET_LANG" \
        --source "${source[@]}" --target "${target[@]}" "${options[@]}" \
        --output @OUT@/text --report @OUT@/report.json
}

prepare train "${TRAIN_PREFIXES[@]}"
prepare valid "$VALID_PREFIX"
prepare test "$TEST_PREFIX"
