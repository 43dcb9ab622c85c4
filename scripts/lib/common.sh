# shellcheck shell=bash
# Purpose: start of every stage of the pipeline: parses the arguments, loads the configuration, locks the work directory.
# Inputs:  the arguments of a stage (CONFIG [SYSTEM] [--dry-run]); settings from the environment, see configs/defaults.env.
# Outputs: all settings as variables; the current directory is the root of the repository.
# Example: source "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"; stage_begin "$@"

# shellcheck source=scripts/lib/process.sh
source "$(dirname "${BASH_SOURCE[0]}")/process.sh"

# Busy-waiting OpenMP threads take up to 30 times as long when another process uses a core: each spins while the thread it waits for
# does not run. Passive waiting avoids this and costs little time on idle cores.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}

# absolute_path PATH: prints the absolute path.
absolute_path() { realpath --canonicalize-missing --no-symlinks -- "$1"; }

# path_from_root PATH: prints the path relative to the root of the repository, if it lies in it.
path_from_root() {
    local path
    path=$(absolute_path "$1")
    echo "${path#"$ROOT/"}"
}

# stage_begin CONFIG [SYSTEM] [--dry-run]: loads and checks the configuration, takes the lock; sets CONFIG, SYSTEM, DRY_RUN.
# A stage that reads raw text must set NEEDS_RAW_TEXT=1 before.
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

# lock_work_dir: allows one run at a time in a work directory. run_all.sh holds the lock for its stages.
lock_work_dir() {
    [[ ${FC_LOCK_HELD:-} == "$(absolute_path "$WORK_DIR")" ]] && return
    mkdir -p "$WORK_DIR"
    exec 9>"$WORK_DIR/.lock"
    # After a kill the lock is released when the last child process has ended, which may take a moment.
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
