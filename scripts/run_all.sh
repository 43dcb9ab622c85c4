#!/usr/bin/env bash
# Purpose: runs the stages of the pipeline in order: raw text -> teacher -> distilled students -> scores and a report.
#          Completed steps are skipped: repeat the command to resume an interrupted run.
# Inputs:  CONFIG, a file of settings (see configs/defaults.env); --from STAGE, --to STAGE: the first and the last stage, by
#          number or name; --dry-run: print all commands without running them.
# Outputs: everything in $WORK_DIR (default runs/NAME); the result is $WORK_DIR/report/report.md.
# Example: bash scripts/run_all.sh configs/multi30k-en-cs.env --from 04 --to 07
#          bash scripts/run_all.sh configs/wmt-en-cs.env --dry-run
# shellcheck source=scripts/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"

usage() { die "usage: run_all.sh CONFIG [--dry-run] [--from STAGE] [--to STAGE] (--help explains)"; }

# stage_number STAGE: 4, 04, 04_train_teacher and train_teacher are the same stage.
stage_number() {
    local file
    for file in "$ROOT"/scripts/stages/[0-9]*.sh; do
        file=$(basename "$file" .sh)
        case $1 in
            "$file" | "${file%%_*}" | "${file#*_}" | "$((10#${file%%_*}))") echo "${file%%_*}" && return ;;
        esac
    done
    die "no such stage: $1 (stages: $(cd "$ROOT/scripts/stages" && echo *.sh))"
}

arguments=() FIRST_STAGE=01 LAST_STAGE=99
while (($# > 0)); do
    case $1 in
        --from | --to)
            (($# >= 2)) || usage
            number=$(stage_number "$2")
            if [[ $1 == --from ]]; then FIRST_STAGE=$number; else LAST_STAGE=$number; fi
            shift
            ;;
        *) arguments+=("$1") ;;
    esac
    shift
done
((${#arguments[@]} > 0)) || usage
if [[ $FIRST_STAGE == 01 ]]; then NEEDS_RAW_TEXT=1; fi
stage_begin "${arguments[@]}"
[[ -z $SYSTEM ]] || usage
autocast=$AUTOCAST
detect_device
[[ $autocast != auto ]] || say "# AUTOCAST=auto is $AUTOCAST on this $FC_DEVICE"

export DRY_RUN WORK_DIR RAW_DIR FC_BIN DEVICE
for stage in scripts/stages/[0-9]*.sh; do
    number=$(basename "$stage")
    number=${number%%_*}
    if ((10#$number < 10#$FIRST_STAGE || 10#$number > 10#$LAST_STAGE)); then continue; fi
    say "== $(basename "$stage" .sh)"
    "${DIE_WITH_PARENT[@]}" bash "$stage" "$CONFIG"
done
