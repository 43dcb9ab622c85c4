#!/usr/bin/env bash
# Purpose: writes the report of all systems: a table, the same as JSON, and a picture of BLEU against size and speed.
# Inputs:  $WORK_DIR/translations/NAME.json
# Outputs: $WORK_DIR/report/report.{md,png,json}; with BASELINE also a table of means over seeds and significance tests
# Example: bash scripts/stages/13_report.sh configs/demo-en-cs.env
# shellcheck source=scripts/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
stage_begin "$@"

SYSTEM=
scores=("$WORK_DIR/translations/teacher.json")
list_scores() { scores+=("$WORK_DIR/translations/$STUDENT_NAME.json"); }
for_each_student list_scores
list_exports() { scores+=("$WORK_DIR/translations/$EXPORT_NAME.json"); }
for_each_export list_exports

report_step "${scores[@]}"
