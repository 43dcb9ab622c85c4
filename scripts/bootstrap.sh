#!/usr/bin/env bash
# Purpose: installs the project and its dependencies into .venv, in the versions of constraints.txt. Does nothing if the
#          installation is complete; repairs an interrupted installation.
# Inputs:  PYTHON (default: the first supported version among python3.11, python3.12, python3.13 and python3), gcc and g++, a
#          network. pip's own variables choose the package index. Without a GPU, set PIP_EXTRA_INDEX_URL to an index with the
#          CPU build of torch; otherwise pip installs the GPU build, which is several GB larger.
#          FAIRSEQ_WHEEL: a wheel made by build_fairseq_wheel.sh, installed instead of compiling fairseq; gcc and g++ are then not
#          needed.
# Outputs: .venv, .venv/bootstrap.log, and at the end .venv/.bootstrap-SHA (a hash of this file, constraints.txt and setup.py).
# Example: bash scripts/bootstrap.sh
# shellcheck source=scripts/lib/process.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/process.sh"
cd "$ROOT"

readonly VENV=.venv LOG=.venv/bootstrap.log
TORCH=$(grep -E '^torch==' constraints.txt)
FAIRSEQ=$(grep -E '^fairseq-fixed==' constraints.txt)
STAMP=$VENV/.bootstrap-$(cat scripts/bootstrap.sh constraints.txt setup.py | sha256sum | cut -c 1-16)

# is_complete: the installation is complete. A virtual environment contains its own path, so a moved one is not complete.
is_complete() { [[ -f $STAMP && $(<"$STAMP") == "$ROOT" ]]; }

# find_python: sets PYTHON.
find_python() {
    local candidate candidates=(python3.11 python3.12 python3.13 python3)
    if [[ -n ${PYTHON:-} ]]; then candidates=("$PYTHON"); fi
    for candidate in "${candidates[@]}"; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            PYTHON=$candidate
            return
        fi
    done
    [[ -z ${PYTHON:-} ]] || die "PYTHON must be Python 3.11, 3.12 or 3.13, got '$PYTHON' ($("$PYTHON" --version 2>&1 || true))"
    die "Python 3.11, 3.12 or 3.13 is needed, but none was found; install it or set PYTHON"
}

check_machine() {
    "$PYTHON" -c 'import venv, ensurepip' 2>/dev/null || die "$PYTHON has no module venv; install python3-venv"
    if [[ -n ${FAIRSEQ_WHEEL:-} ]]; then
        [[ -f $FAIRSEQ_WHEEL && ${FAIRSEQ_WHEEL##*/} == fairseq_fixed-*.whl ]] ||
            die "FAIRSEQ_WHEEL must be a wheel of build_fairseq_wheel.sh, got '$FAIRSEQ_WHEEL'"
    else
        check_compiler
    fi
    if [[ $OSTYPE == linux* && -z ${PIP_EXTRA_INDEX_URL:-}${PIP_INDEX_URL:-}${PIP_FIND_LINKS:-} ]]; then
        check_disk "$ROOT" 12 " for torch with its GPU libraries; 4 GB do when PIP_EXTRA_INDEX_URL names an index with the processor-only build"
    else
        check_disk "$ROOT" 4
    fi
    check_disk "${TMPDIR:-/tmp}" 1
}

check_compiler() {
    local tool include
    for tool in gcc g++; do
        command -v "$tool" >/dev/null || die "$tool is needed to build fairseq, but was not found; install gcc and g++"
    done
    include=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
    [[ -f $include/Python.h ]] || die "$include/Python.h is needed to build fairseq; install python3-dev"
}

# check_disk FOLDER GIGABYTES [EXPLANATION]
check_disk() {
    local free
    [[ -d $1 ]] || die "TMPDIR must be a folder, got '$1'"
    free=$(df -Pk "$1" | awk 'NR == 2 { print int($4 / 1024 / 1024) }')
    ((free >= $2)) || die "$1 has $free GB of free disk space, $2 GB are needed${3:-}"
}

# install WHAT ARGUMENTS...: runs pip quietly and prints its errors if it fails. A pip killed for lack of memory prints no error.
install() {
    local before=0
    if [[ -f $LOG ]]; then before=$(wc -c <"$LOG"); fi
    say "bootstrap: $1"
    "${DIE_WITH_PARENT[@]}" "$VENV/bin/python" -m pip install --disable-pip-version-check -c constraints.txt "${@:2}" \
        >>"$LOG" 2>&1 && return
    tail -c "+$((before + 1))" "$LOG" | { grep -i '^error' || true; } | tail -n 3 | cut -c 1-300 >&2
    die "could not install: $1; see $LOG (without a network, pip finds nothing)"
}

# drop_half_installed: pip writes RECORD last. A package without RECORD is incomplete, but pip would consider it installed.
drop_half_installed() {
    local info
    for info in "$VENV"/lib/python*/site-packages/*.dist-info; do
        if [[ -d $info && ! -f $info/RECORD ]]; then rm -rf "$info"; fi
    done
}

# can_be_repaired: pip starts, and the commands refer to this folder (a virtual environment cannot be moved).
can_be_repaired() {
    "$VENV/bin/python" -m pip --version >/dev/null 2>&1 && [[ $(head -n 1 "$VENV/bin/pip") == "#!$ROOT/$VENV/bin/"* ]]
}

install_packages() {
    if ! can_be_repaired; then
        rm -rf "$VENV"
        "$PYTHON" -m venv "$VENV" || die "$PYTHON -m venv $VENV failed"
    fi
    drop_half_installed
    # fairseq's build imports torch, numpy and Cython. With build isolation pip would download a second torch for it.
    install "pip and build tools" -U pip setuptools wheel cython numpy
    install "$TORCH" "$TORCH"
    if [[ -n ${FAIRSEQ_WHEEL:-} ]]; then
        install "$FAIRSEQ_WHEEL" "$FAIRSEQ_WHEEL"
    else
        install "$FAIRSEQ (compiles for about 2 minutes)" --no-build-isolation "$FAIRSEQ"
    fi
    install "the project and its tools" --no-build-isolation -e '.[all,dev]'
}

works() {
    "$VENV/bin/python" -c '
import ctranslate2, matplotlib, onnx, onnxruntime, pytest, sacrebleu, sentencepiece, torch, wandb
import fairseq.data.data_utils_fast, fairseq.libnat' >>"$LOG" 2>&1
}

if is_complete; then exit 0; fi
# Only one process installs; the others wait and then find a complete installation. The lock needs a file that always exists.
exec 8<constraints.txt
flock 8
if is_complete; then exit 0; fi

find_python
check_machine
install_packages
if ! works; then
    say "bootstrap: what was there does not work; starting afresh"
    rm -rf "$VENV"
    export PIP_NO_CACHE_DIR=1 # pip's cache may hold a fairseq that was compiled for another torch
    install_packages
    works || die "the packages were installed but do not work together; see $LOG"
fi
rm -f "$VENV"/.bootstrap-*
printf '%s\n' "$ROOT" >"$VENV/.bootstrap-new"
mv "$VENV/.bootstrap-new" "$STAMP"
say "bootstrap: done"
