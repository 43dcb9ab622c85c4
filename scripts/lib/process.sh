# shellcheck shell=bash disable=SC2034
# Purpose: what every script starts with, before any configuration: strictness, --help, messages, the life of child processes.
# Inputs:  the script's arguments; HOME, which may be empty.
# Outputs: ROOT, LIB; say, die; the array DIE_WITH_PARENT to put before a command.
# Example: source "$(dirname "${BASH_SOURCE[0]}")/lib/process.sh"
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
LIB=$ROOT/scripts/lib

say() { printf '%s\n' "$*"; }

die() {
    printf '%s: error: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# show_help: the comment at the head of the script: its purpose, inputs, outputs and an example.
show_help() { sed -n -e '1d' -e '/^# shellcheck/q' -e '/^#/!q' -e 's/^# \{0,1\}//p' "$0"; }

# A script of scripts/lib runs a command of somebody else's, whose --help it may be.
if [[ ${BASH_SOURCE[-1]} != */lib/* ]]; then
    for argument in "$@"; do
        case $argument in -h | --help) show_help && exit ;; esac
    done
fi

# Children of a killed script must not work on: two writers in one folder spoil it. Linux can tie their life to ours.
DIE_WITH_PARENT=()
if setpriv --pdeathsig KILL true 2>/dev/null; then
    DIE_WITH_PARENT=(setpriv --pdeathsig KILL --)
fi

export PYTHONUTF8=1 # whatever the locale, text is UTF-8

# Libraries keep caches in HOME, and a container may have none.
if [[ -z ${HOME:-} ]]; then
    HOME=$ROOT/runs/.home
    mkdir -p "$HOME"
    export HOME
fi
