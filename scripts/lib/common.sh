# shellcheck shell=bash
# Purpose: what every stage of the pipeline starts with: its arguments, the configuration, the lock.
# Inputs:  the arguments of a stage (CONFIG [SYSTEM] [--dry-run]) and the machine's variables, see configs/defaults.env.
# Outputs: every setting as a variable; the current directory is the root of the repository.
# Example: source "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"; stage_begin "$@"

# shellcheck source=scripts/lib/process.sh
source "$(dirname "${BASH_SOURCE[0]}")/process.sh"

# Threads that wait for each other at full speed take up to 30 times as long when something else uses a core: each spins while
# the one that it waits for does not run. Asleep they cost nothing, and little time where every core is free.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}

# absolute_path PATH: a path of the caller's, made independent of the current directory.
absolute_path() { realpath --canonicalize-missing --no-symlinks -- "$1"; }

# path_from_root PATH: a path of the caller's, as seen from the root of the repository.
path_from_root() {
    local path
    path=$(absolute_path "$1")
    echo "${path#"$ROOT/"}"
}

# stage_begin CONFIG [SYSTEM] [--dry-run]: loads and checks the configuration, takes the lock; sets CONFIG, SYSTEM, DRY_RUN.
# A caller that reads raw text sets NEEDS_RAW_TEXT=1 first.
stage_begin() {
    parse_arguments "$@"
    load_config "$CONFIG"
    check_config
    if [[ $DRY_RUN == 0 ]]; then
        lock_work_dir
        mkdir -p "$WORK_DIR/logs"
    fi
}

# parse_arguments CONFIG [SYSTEM] [--dry-run]
parse_arguments() {
    local positional=() argument
    DRY_RUN=${DRY_RUN:-0}
    for argument in "$@"; do
        case $argument in
            --dry-run) DRY_RUN=1 ;;
            -*) die "unknown option $argument (usage: ${0##*/} CONFIG [SYSTEM] [--dry-run])" ;;
            *) positional+=("$argument") ;;
        esac
    done
    ((${#positional[@]} == 1 || ${#positional[@]} == 2)) || die "usage: ${0##*/} CONFIG [SYSTEM] [--dry-run]"
    CONFIG=${positional[0]} SYSTEM=${positional[1]:-}
}

# lock_work_dir: one run at a time in a work directory. run_all.sh holds the lock for the stages that it starts.
lock_work_dir() {
    [[ ${FC_LOCK_HELD:-} == "$(absolute_path "$WORK_DIR")" ]] && return
    mkdir -p "$WORK_DIR"
    exec 9>"$WORK_DIR/.lock"
    # A killed run frees the lock when its last child is gone, which may take a moment.
    flock --wait "${FC_LOCK_WAIT:-5}" 9 || die "another run works in $WORK_DIR; wait for its end, or set WORK_DIR"
    FC_LOCK_HELD=$(absolute_path "$WORK_DIR")
    export FC_LOCK_HELD
}

# shellcheck source=scripts/lib/names.sh
source "$LIB/names.sh"
# shellcheck source=scripts/lib/config.sh
source "$LIB/config.sh"
# shellcheck source=scripts/lib/fingerprints.sh
source "$LIB/fingerprints.sh"
# shellcheck source=scripts/lib/limits.sh
source "$LIB/limits.sh"
# shellcheck source=scripts/lib/steps.sh
source "$LIB/steps.sh"
# shellcheck source=scripts/lib/counts.sh
source "$LIB/counts.sh"
# shellcheck source=scripts/lib/device.sh
source "$LIB/device.sh"
# shellcheck source=scripts/lib/launch.sh
source "$LIB/launch.sh"
# shellcheck source=scripts/lib/students.sh
source "$LIB/students.sh"
# shellcheck source=scripts/lib/exports.sh
source "$LIB/exports.sh"
# shellcheck source=scripts/lib/fairseq.sh
source "$LIB/fairseq.sh"
# shellcheck source=scripts/lib/text.sh
source "$LIB/text.sh"
# shellcheck source=scripts/lib/distill.sh
source "$LIB/distill.sh"
