#!/usr/bin/env bash
# Purpose: scores each translation with sacreBLEU on plain text; size, speed and facts of the training go with it.
# Inputs:  $WORK_DIR/translations/NAME.LANG and NAME.log, $WORK_DIR/prepared/test, the averaged checkpoints
# Outputs: $WORK_DIR/translations/NAME.json
# Example: bash scripts/stages/10_score.sh configs/demo-en-cs.env
# shellcheck source=scripts/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
stage_begin "$@"

# noted KEY LOG: what stage 09 noted at the end of its log.
noted() { sed -n "s/^# $1: //p" "$2" | tail -n 1; }

# score NAME CHECKPOINT BASELINE KEY=VALUE...: BASELINE is the system to test against, or empty.
score() {
    local name=$1 checkpoint=$2 log=$WORK_DIR/translations/$1.log seconds=SECONDS_IN_LOG hardware=HARDWARE_IN_LOG
    local hypothesis=$WORK_DIR/translations/$name.$TARGET_LANG
    local source_text=$WORK_DIR/prepared/test/text.$SOURCE_LANG reference=$WORK_DIR/prepared/test/text.$TARGET_LANG
    local inputs=(--in "$hypothesis" --in "$reference" --in "$source_text" --in "$checkpoint") options=()
    if [[ -n $3 ]]; then
        options=(--baseline "$WORK_DIR/translations/$3.$TARGET_LANG")
        inputs+=(--in "${options[1]}")
    fi
    shift 3
    if [[ $DRY_RUN == 0 ]]; then
        require_inputs "score-$name" "$log"
        seconds=$(noted seconds "$log")
        hardware=$(noted hardware "$log")
    fi
    run_step "score-$name" "$WORK_DIR/translations/$name.json" "${inputs[@]}" -- \
        "$FC_BIN/fairseq-compress" score --name "$name" \
        --hypothesis "$hypothesis" --reference "$reference" --source "$source_text" "${options[@]}" --output @OUT@ \
        --source-lang "$SOURCE_LANG" --target-lang "$TARGET_LANG" \
        --checkpoint "$checkpoint" --translation-seconds "$seconds" \
        --set "$@" "beam=$BEAM" "hardware=$hardware"
}

score_student() {
    local facts=(
        role=student "arch=$STUDENT_ARCH" "criterion=$STUDENT_CRITERION" "data=$STUDENT_DATA"
        "updates=$(updates_of "train-$STUDENT_NAME")" "seed=$STUDENT_SEED"
    )
    # What comparison.md groups by, and what it tells.
    if [[ -n $BASELINE ]]; then
        facts+=("system=$STUDENT_SYSTEM" "seconds_per_update=$(pace_of "train-$STUDENT_NAME")")
    fi
    baseline_of_student
    score "$STUDENT_NAME" "$WORK_DIR/students/$STUDENT_NAME/averaged.pt" "$REPLY" "${facts[@]}"
}

if [[ -z $SYSTEM || $SYSTEM == teacher ]]; then
    score teacher "$WORK_DIR/teacher/averaged.pt" "" role=teacher "arch=$TEACHER_ARCH" \
        criterion=label_smoothed_cross_entropy data=gold "updates=$(updates_of train-teacher)" "seed=$SEED"
fi
for_each_student score_student
