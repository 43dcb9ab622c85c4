# shellcheck shell=bash disable=SC2034
# Purpose: start of every script: strict mode, --help, messages, and child processes that end with their parent.
# Inputs:  the script's arguments; HOME, which may be empty.
# Outputs: ROOT, LIB; say, die; the array DIE_WITH_PARENT, a prefix for commands.
# Example: source "$(dirname "${BASH_SOURCE[0]}")/lib/process.sh"
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
LIB=$ROOT/scripts/lib

say() { printf '%s\n' "$*"; }

die() {
    printf '%s: error: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# show_help: prints the comment at the head of the script: its purpose, inputs, outputs and an example.
show_help() { sed -n -e '1d' -e '/^# shellcheck/q' -e '/^#/!q' -e 's/^# \{0,1\}//p' "$0"; }

# Not in scripts/lib: there, --help may be an argument of the command that the script runs.
if [[ ${BASH_SOURCE[-1]} != */lib/* ]]; then
    for argument in "$@"; do
        case $argument in -h | --help) show_help && exit ;; esac
    done
fi

# Child processes of a killed script must end too: two writers would corrupt an output folder. Linux can send a signal to
# children when the parent dies.
DIE_WITH_PARENT=()
if setpriv --pdeathsig KILL true 2>/dev/null; then
    DIE_WITH_PARENT=(setpriv --pdeathsig KILL --)
fi

export PYTHONUTF8=1 # text is UTF-8, whatever the locale

# Libraries store caches in HOME, which may not be set in a container.
if [[ -z ${HOME:-} ]]; then
    HOME=$ROOT/runs/.home
    mkdir -p "$HOME"
    export HOME
fi
