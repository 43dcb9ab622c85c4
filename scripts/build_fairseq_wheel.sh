#!/usr/bin/env bash
# Purpose: compiles fairseq once into a wheel, which installs in seconds and without a compiler.
# Inputs:  the folder for the wheel (default: wheels); PYTHON (default: .venv/bin/python) with torch, numpy, Cython, setuptools and
#          wheel installed; gcc, g++, a network. The wheel works only with this version of Python and of torch.
# Outputs: FOLDER/fairseq_fixed-VERSION-cpXY-cpXY-PLATFORM.whl
# Example: bash scripts/build_fairseq_wheel.sh wheels
# shellcheck source=scripts/lib/process.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/process.sh"

folder=$(realpath -m -- "${1:-wheels}")
cd "$ROOT"
PYTHON=${PYTHON:-.venv/bin/python}
FAIRSEQ=$(grep -E '^fairseq-fixed==' constraints.txt)

[[ $# -le 1 ]] || die "takes one folder, got: $*"
"$PYTHON" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null ||
    die "PYTHON must be Python 3.11, 3.12 or 3.13, got '$PYTHON'; bash scripts/bootstrap.sh makes .venv/bin/python"
for module in torch numpy Cython setuptools wheel; do
    "$PYTHON" -c "import $module" 2>/dev/null ||
        die "$PYTHON has no package ${module,,}: pip install torch numpy cython setuptools wheel"
done
for tool in gcc g++; do
    command -v "$tool" >/dev/null || die "$tool is needed to build fairseq, but was not found; install gcc and g++"
done

mkdir -p "$folder"
building=$(mktemp -d "$folder/.building.XXXXXX")
trap 'rm -rf "$building"' EXIT
say "build_fairseq_wheel: $FAIRSEQ (compiles for about 2 minutes)"
# Without pip's cache, which may hold a wheel compiled for another torch.
"${DIE_WITH_PARENT[@]}" "$PYTHON" -m pip wheel --disable-pip-version-check --quiet --no-cache-dir --no-build-isolation \
    --no-deps --no-binary fairseq-fixed --wheel-dir "$building" "$FAIRSEQ" || die "could not build $FAIRSEQ"
wheel=$(basename "$building"/*.whl)
mv "$building/$wheel" "$folder/$wheel"
say "$folder/$wheel"
"$PYTHON" -c 'import sys, torch; print(f"for Python {sys.version_info[0]}.{sys.version_info[1]} and torch {torch.__version__}")'
