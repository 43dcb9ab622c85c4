# shellcheck shell=bash
# Purpose: runs an experiment that compares students: the whole pipeline with the experiment's configuration, then its report.
# Inputs:  WORK_DIR, LONG.
# Outputs: $WORK_DIR/report/report.md, printed at the end.
# Example: source "$(dirname "${BASH_SOURCE[0]}")/../lib/experiment.sh"; compare_students distillation-multi30k-en-cs "$@"
# shellcheck source=scripts/lib/process.sh
source "$(dirname "${BASH_SOURCE[0]}")/process.sh"

# compare_students NAME [arguments of run_all.sh]: runs configs/experiments/NAME.env in runs/NAME (with LONG=1: runs/NAME-long).
compare_students() {
    local name=$1 suffix='' page
    shift
    bash "$ROOT/scripts/bootstrap.sh"
    if [[ ${LONG:-0} == 1 ]]; then suffix=-long; fi
    export WORK_DIR=${WORK_DIR:-$ROOT/runs/$name$suffix}
    "${DIE_WITH_PARENT[@]}" bash "$ROOT/scripts/run_all.sh" "$ROOT/configs/experiments/$name.env" "$@"
    page=$(realpath -m -- "$WORK_DIR")/report/report.md
    if [[ -f $page ]]; then
        say ""
        cat "$page"
        say ""
        say "report: $page"
    fi
}
