#!/usr/bin/env bash
# Purpose: tests the project with each supported version of Python: all unit tests, a training, an export to both runtimes, and
#          translations. Steps that passed are skipped, so an interrupted run resumes.
# Inputs:  versions among 3.11, 3.12, 3.13 (default: all three); --oldest: Python 3.11 with the oldest supported torch; a network,
#          gcc and g++.
#          PYTHONS_DIR: folder for the virtual environments (default: .pythons), 2 to 8 GB each.
# Outputs: $PYTHONS_DIR/NAME, the environments; NAME.unit.log, NAME.use.log; a table. The exit status is 0 if all tests pass.
# Example: nice bash scripts/check_pythons.sh
#          nice bash scripts/check_pythons.sh --oldest
# shellcheck source=scripts/lib/process.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/process.sh"
cd "$ROOT"

readonly OLDEST=oldest OLDEST_TORCH=2.6.0
PYTHONS_DIR=${PYTHONS_DIR:-.pythons}
mkdir -p "$PYTHONS_DIR"
PYTHONS_DIR=$(realpath -- "$PYTHONS_DIR")
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} WANDB_MODE=offline PYTHONDONTWRITEBYTECODE=1
FAIRSEQ=$(grep -E '^fairseq-fixed==' constraints.txt)

# find_python VERSION: prints the command of that Python.
find_python() {
    local candidate
    for candidate in "python$1" "$HOME/.pyenv/versions/$1".*/bin/"python$1"; do
        if "$candidate" -c "import sys, venv; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    die "Python $1 is needed, but was not found"
}

# constraints NAME: prints the path of the file with exact versions. The oldest torch needs other versions of torchaudio and sympy.
constraints() {
    if [[ $1 != "$OLDEST" ]]; then
        printf '%s\n' "$ROOT/constraints.txt"
        return
    fi
    sed -E "s/^(torch|torchaudio)==.*/\1==$OLDEST_TORCH/; /^sympy==/d" constraints.txt >"$PYTHONS_DIR/$1.constraints.txt"
    printf '%s\n' "$PYTHONS_DIR/$1.constraints.txt"
}

# run_once NAME PART COMMAND...: runs the command with its output in NAME.PART.log, unless it already passed with these files.
run_once() {
    local log=$PYTHONS_DIR/$1.$2.log stamp=$PYTHONS_DIR/$1.$2.passed state
    state=$(state "$2")
    if [[ -f $stamp && $(<"$stamp") == "$state" ]]; then
        say "check_pythons: $1, $2: passed already"
        return
    fi
    rm -f "$stamp"
    say "check_pythons: $1, $2"
    "${@:3}" >"$log" 2>&1 || return 1
    printf '%s\n' "$state" >"$stamp"
}

# state PART: prints a checksum of the files that the part depends on.
state() {
    local files=(setup.py constraints.txt scripts/check_pythons.sh)
    if [[ $1 != install ]]; then files+=(fairseq_compress tests configs scripts data docs pyproject.toml); fi
    find "${files[@]}" -type f -not -path '*/__pycache__/*' -print0 | sort -z | xargs -0 sha256sum | sha256sum | cut -c 1-16
}

# install NAME PYTHON: installs as bootstrap.sh does, but fairseq without pip's cache, which may hold one compiled for another
# torch.
install() {
    local venv=$PYTHONS_DIR/$1 pip
    pip=("${DIE_WITH_PARENT[@]}" "$venv/bin/python" -m pip install --disable-pip-version-check -c "$(constraints "$1")")
    if [[ ! -x $venv/bin/pip ]]; then "$2" -m venv --clear "$venv" || return 1; fi
    "${pip[@]}" -U pip setuptools wheel cython numpy && "${pip[@]}" torch torchaudio &&
        "${pip[@]}" --no-cache-dir --no-binary fairseq-fixed --no-build-isolation "$FAIRSEQ" &&
        "${pip[@]}" --no-build-isolation -e '.[all,dev]' &&
        "$venv/bin/python" -c 'import torch, fairseq.data.data_utils_fast, fairseq.libnat'
}

# check NAME PYTHON: runs all parts; returns 1 if the installation fails.
check() {
    local python=$PYTHONS_DIR/$1/bin/python test
    test=("${DIE_WITH_PARENT[@]}" "$python" -m pytest -n 0 -q -p no:cacheprovider)
    run_once "$1" install install "$1" "$2" || return 1
    run_once "$1" use "${test[@]}" tests/integration/test_export.py || FAILED+=("$1: training, export, translation")
    run_once "$1" unit "${test[@]}" tests/unit || FAILED+=("$1: unit tests")
    versions+=("$1: $("$python" -c 'import sys, torch, numpy; print("Python", sys.version.split()[0], "torch", torch.__version__, "numpy", numpy.__version__)')")
}

names=() FAILED=() versions=()
for argument; do
    case $argument in
        --oldest) names+=("$OLDEST") ;;
        3.11 | 3.12 | 3.13) names+=("$argument") ;;
        *) die "takes 3.11, 3.12, 3.13 and --oldest, got '$argument'" ;;
    esac
done
if [[ $# == 0 ]]; then names=(3.11 3.12 3.13); fi
for name in "${names[@]}"; do
    version=${name/$OLDEST/3.11}
    python=$(find_python "$version")
    check "$name" "$python" || FAILED+=("$name: installation")
done

for line in "${versions[@]}"; do say "$line"; done
for log in "${names[@]/%/.use.log}" "${names[@]/%/.unit.log}"; do
    [[ ! -f $PYTHONS_DIR/$log ]] || say "$log: $(tail -n 1 "$PYTHONS_DIR/$log")"
done
[[ ${#FAILED[@]} == 0 ]] || die "failed: $(printf '%s; ' "${FAILED[@]}")see the logs in $PYTHONS_DIR"
