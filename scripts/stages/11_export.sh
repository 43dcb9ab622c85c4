#!/usr/bin/env bash
# Purpose: exports the models in EXPORT to a runtime without torch and verifies them on the validation text; translates the test
#          set with each, then a sample of it three times to measure the speed. Skipped if EXPORT is empty.
# Inputs:  the checkpoints of teacher and students, $WORK_DIR/bin, $WORK_DIR/vocabulary, $WORK_DIR/prepared
# Outputs: $WORK_DIR/exported/NAME, a model directory; $WORK_DIR/translations/NAME.{log,LANG}
# Example: bash scripts/stages/11_export.sh configs/demo-en-cs.env
# shellcheck source=scripts/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
stage_begin "$@"

export_system() {
    local checkpoint=$WORK_DIR/teacher/averaged.pt data model valid=$WORK_DIR/prepared/valid/text inputs index
    if [[ $EXPORT_OF != teacher ]]; then checkpoint=$(student_checkpoint); fi
    data=$(data_folder "gold${STUDENT_PIECES:+@$STUDENT_PIECES}") model=$(vocabulary_folder "$STUDENT_PIECES")/spm.model
    inputs=(--in "$checkpoint" --in "$data" --in "$model" --in "$valid.$SOURCE_LANG" --in "$valid.$TARGET_LANG")
    for index in "${!EXPORT_ARGUMENTS[@]}"; do
        if [[ ${EXPORT_ARGUMENTS[index]} == --calibration ]]; then inputs+=(--in "${EXPORT_ARGUMENTS[index + 1]:-}"); fi
    done
    run_step "export-$EXPORT_NAME" "$(export_folder)" "${inputs[@]}" -- \
        "$FC_BIN/fairseq-compress" export --checkpoint "$checkpoint" --data "$data" --sentencepiece-model "$model" \
        --output @OUT@ --source "$valid.$SOURCE_LANG" --reference "$valid.$TARGET_LANG" \
        --beam "$BEAM" --lenpen "$LENGTH_PENALTY" --max-len-a "$MAX_LEN_A" --max-len-b "$MAX_LEN_B" "${EXPORT_ARGUMENTS[@]}"
    translate_exported "$WORK_DIR/translations/$EXPORT_NAME"
}

# translate_exported PREFIX: the log has the translations first, then three lines about the speed and the hardware.
translate_exported() {
    local text=$WORK_DIR/prepared/test/text.$SOURCE_LANG
    FC_DEVICE=cpu # read by hardware_name
    run_step "translate-$EXPORT_NAME" "$1.log" --stdout --in "$(export_folder)" --in "$text" --check note_hardware -- \
        "$FC_BIN/fairseq-compress" time --checkpoint "$(export_folder)" --source "$text"
    run_step "collect-$EXPORT_NAME" "$1.$TARGET_LANG" --stdout --in "$1.log" --check check_same_lines --check "$text" -- \
        head -n -3 "$1.log"
}

for_each_export export_system
((${#EXPORT[@]} > 0)) || say "skip export (EXPORT is empty)"
