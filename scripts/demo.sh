#!/usr/bin/env bash
# Purpose: sets up everything, then runs the whole pipeline on the demo corpus: a teacher, students, their comparison.
# Inputs:  none; further arguments go to run_all.sh.
# Outputs: runs/demo-en-cs/report/report.md, which is printed at the end. The corpus is synthetic.
# Example: bash scripts/demo.sh
# shellcheck source=scripts/lib/process.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/process.sh"

bash "$ROOT/scripts/bootstrap.sh"
"${DIE_WITH_PARENT[@]}" bash "$ROOT/scripts/run_all.sh" "$ROOT/configs/demo-en-cs.env" "$@"

report=$(realpath -m -- "${WORK_DIR:-$ROOT/runs/demo-en-cs}")/report/report.md
if [[ -f $report ]]; then
    say ""
    cat "$report"
    say ""
    say "report: $report"
fi
