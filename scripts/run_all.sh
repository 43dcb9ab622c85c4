#!/usr/bin/env bash
# Purpose: runs the stages of the pipeline in order: raw text -> teacher -> distilled students -> scores and a report.
#          What is done already is skipped; after an interruption the same command goes on.
# Inputs:  CONFIG, a file of settings (configs/defaults.env explains each).
# Outputs: everything in $WORK_DIR (default runs/NAME); the result is $WORK_DIR/report/report.md.
# Example: bash scripts/run_all.sh configs/multi30k-en-cs.env --from 04 --to 07
#          bash scripts/run_all.sh configs/wmt-en-cs.env --dry-run     # prints every command, runs nothing
# shellcheck source=scripts/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"

usage() { die "usage: run_all.sh CONFIG [--dry-run] [--from STAGE] [--to STAGE]"; }

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

arguments=() from=01 to=99
while (($# > 0)); do
    case $1 in
        --from | --to)
            (($# >= 2)) || usage
            number=$(stage_number "$2")
            printf -v "${1#--}" %s "$number"
            shift
            ;;
        *) arguments+=("$1") ;;
    esac
    shift
done
((${#arguments[@]} > 0)) || usage
if [[ $from == 01 ]]; then NEEDS_RAW_TEXT=1; fi
stage_begin "${arguments[@]}"
[[ -z $SYSTEM ]] || usage
autocast=$AUTOCAST
detect_device
[[ $autocast != auto ]] || say "# AUTOCAST=auto is $AUTOCAST on this $FC_DEVICE"

export DRY_RUN WORK_DIR RAW_DIR FC_BIN DEVICE
for stage in scripts/stages/[0-9]*.sh; do
    number=$(basename "$stage")
    number=${number%%_*}
    if ((10#$number < 10#$from || 10#$number > 10#$to)); then continue; fi
    say "== $(basename "$stage" .sh)"
    "${DIE_WITH_PARENT[@]}" bash "$stage" "$CONFIG"
done
