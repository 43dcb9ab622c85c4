#!/usr/bin/env bash
# Purpose: installs the project, then runs the whole pipeline on a synthetic corpus: a teacher, two smaller students, one of them
#          distilled; the distilled student is exported in int8 and translates without torch. Takes 6 minutes on 2 idle cores with
#          AVX2, in addition to the installation.
# Inputs:  none; further arguments are passed to run_all.sh.
# Outputs: runs/demo-en-cs: report/report.md, a table; report/report.png, quality against size; exported/, the exported model. The
#          table and some translations are printed at the end.
# Example: bash scripts/demo.sh
# shellcheck source=scripts/lib/process.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/process.sh"

readonly SENTENCES=6

bash "$ROOT/scripts/bootstrap.sh"
"${DIE_WITH_PARENT[@]}" bash "$ROOT/scripts/run_all.sh" "$ROOT/configs/demo-en-cs.env" "$@"

work=$(realpath -m -- "${WORK_DIR:-$ROOT/runs/demo-en-cs}")
if [[ ! -f $work/report/report.md || ! -d $work/exported/student-distilled-int8 ]]; then exit; fi
say ""
cat "$work/report/report.md"
say ""
say "The exported student translates:"
say ""
sources=$(head -n "$SENTENCES" "$work/prepared/test/text.en")
"${FC_BIN:-$ROOT/.venv/bin}/fairseq-compress" translate "$work/exported/student-distilled-int8" <<<"$sources" |
    paste -d '\n' <(printf '%s\n' "$sources") - | awk '{ print "    " (NR % 2 ? "en" : "cs") "  " $0 }'
say ""
say "report:  $work/report/report.md"
say "picture: $work/report/report.png"
say "model:   $work/exported/student-distilled-int8"
