#!/usr/bin/env bash
# Purpose: compares kinds of quantization on Multi30k, starting from one trained model: int8 and int4 without training, with
#          quantization-aware training and with quant-noise; activations; product quantization; iPQ with and without noise and a
#          teacher; iPQ + int8; codebooks with equal numbers of bits. The report has BLEU, chrF2 and the bytes of the packed file.
# Inputs:  the text of bash data/download.sh multi30k. JOBS: number of parallel trainings (default: the number of cores).
#          SEEDS="1 2": seeds of float32, int8 and int4. LONG=1: the long version, for a GPU.
# Outputs: $WORK_DIR/report/report.md (default WORK_DIR: runs/quantization-multi30k-en-cs, with LONG=1 ...-long), printed at the
#          end; $WORK_DIR/packed/NAME.safetensors. Repeat the command to resume an interrupted run.
# Example: bash scripts/experiments/quantization.sh
# shellcheck source=scripts/lib/common.sh disable=SC2154 # the configuration sets names in lower case
source "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"

bash "$ROOT/scripts/bootstrap.sh"
if [[ ${LONG:-0} == 1 ]]; then suffix=-long; else suffix=; fi
export WORK_DIR=${WORK_DIR:-$ROOT/runs/quantization-multi30k-en-cs$suffix}
config=$ROOT/configs/experiments/quantization-multi30k-en-cs.env
"${DIE_WITH_PARENT[@]}" bash "$ROOT/scripts/run_all.sh" "$config" --to 08 "$@"

if [[ " $* " == *" --dry-run "* ]]; then DRY_RUN=1; fi
stage_begin "$config"
compress=$FC_BIN/fairseq-compress scores=()
trained() { echo "$WORK_DIR/students/$1/averaged.pt"; }
quantized() { echo "$WORK_DIR/quantized/$1/model.pt"; }

# system NAME CHECKPOINT [PLAN]: compresses the model with the plan into a packed file, translates and scores. NAME.2 is the system
# with seed 2 and is tested against the baseline with seed 2.
system() {
    local name=$1 packed=$WORK_DIR/packed/$1.safetensors inputs=(--in "$2") options=() seed=$SEED system=$1 baseline
    if [[ $name =~ ^(.*)\.([0-9]+)$ ]]; then system=${BASH_REMATCH[1]} seed=${BASH_REMATCH[2]}; fi
    baseline=$BASELINE${name#"$system"}
    if [[ -n ${3:-} ]]; then
        inputs+=(--in "configs/plans/$3.yaml")
        options=(--plan "configs/plans/$3.yaml")
    fi
    if [[ $system == "$BASELINE" ]]; then baseline=; fi
    run_step "pack-$name" "$packed" "${inputs[@]}" -- \
        "$compress" quantize --format packed --checkpoint "$2" --output @OUT@ "${options[@]}"
    translate_step "$name" "$WORK_DIR/bin" test "$packed" "$BEAM" "$TRANSLATE_MAX_TOKENS" \
        "$WORK_DIR/prepared/test/text.$SOURCE_LANG" "$WORK_DIR/translations/$name"
    score_step "$name" "$packed" "$baseline" "system=$system" "seed=$seed"
    scores+=("$WORK_DIR/translations/$name.json")
}

# staged NAME CHECKPOINT PLAN [arguments of the training]: quantizes in stages with training after each stage. quantized NAME is
# the result.
# shellcheck disable=SC2034 # train_command reads the settings of STUDENT
staged() {
    local name=$1 checkpoint=$2 plan=configs/plans/$3.yaml STUDENT_MAX_UPDATE=$stage_updates
    local STUDENT_SAVE_INTERVAL=$stage_updates training=() word criterion=fused_label_smoothed_cross_entropy
    shift 3
    train_command STUDENT "$WORK_DIR/bin" "$TEACHER_ARCH" "$criterion"
    for word in "${COMMAND[@]:1}"; do
        if [[ $word != --save-dir && $word != @OUT@ ]]; then training+=("$word"); fi
    done
    run_step "quantize-$name" "$WORK_DIR/quantized/$name" --folder --resume --log --in "$checkpoint" --in "$plan" \
        --in "$WORK_DIR/bin" --in "$(trained float32)" "${MACHINE_ARGUMENTS[@]}" -- \
        "$compress" quantize --checkpoint "$checkpoint" --plan "$plan" --output @OUT@/model.pt --stages-dir @OUT@/stages \
        --calibration-data "$WORK_DIR/bin" --seed "$SEED" -- "${training[@]}" --total-num-update "$stage_updates" "$@"
}

stages() {
    staged ipq "$(trained float32)" ipq
    staged ipq-noise "$(trained product-noise)" ipq
    staged ipq-noise-int8 "$(quantized ipq-noise)" ipq-int8
    local teacher=(
        --criterion word_level_kd --teacher-path "$(trained float32)" --teacher-data "$WORK_DIR/bin"
        --kd-temperature "$KD_TEMPERATURE" --kd-alpha "$KD_ALPHA"
    )
    staged ipq-noise-teacher "$(trained product-noise)" ipq "${teacher[@]}"
    stage_updates=$longer_updates
    staged ipq-20x "$(trained product-noise)" ipq-20x "${teacher[@]}" --lr "$longer_lr" \
        --dropout "$longer_dropout"
}

detect_device
resolve_jobs
if ((JOBS > 1 && DRY_RUN == 0)); then # they train while the other systems translate
    stages &
    trap 'kill $! 2>/dev/null || true' EXIT
else
    stages
fi

for suffix in "${suffixes[@]}"; do
    system "float32$suffix" "$(trained "float32$suffix")"
    for plan in int8 int4; do system "$plan$suffix" "$(trained "float32$suffix")" $plan; done
    for name in int8-qat int8-noise int4-qat int4-noise; do system "$name$suffix" "$(trained "$name$suffix")"; done
done
system int8-activations-dynamic "$(trained float32)" int8-activations
run_step calibrate "$WORK_DIR/quantized/percentile" --folder --in "$(trained float32)" --in "$WORK_DIR/bin" \
    --in configs/plans/int8-activations.yaml -- \
    "$compress" quantize --checkpoint "$(trained float32)" --plan configs/plans/int8-activations.yaml \
    --output @OUT@/model.pt --calibration-data "$WORK_DIR/bin" --seed "$SEED"
system int8-activations-percentile "$(quantized percentile)"
for plan in percentile-4 kmeans-4 percentile-2 kmeans-2 product-2 opq-2 lsq-2; do
    system $plan "$(trained float32)" $plan
done
system pq "$(trained float32)" ipq
system pq-noise "$(trained product-noise)" ipq
((JOBS == 1 || DRY_RUN == 1)) || wait $! || die "a stage failed, see above; the same command goes on"
for name in ipq ipq-noise ipq-noise-int8 ipq-noise-teacher ipq-20x; do system $name "$(quantized $name)"; done

report_step "${scores[@]}"
if [[ $DRY_RUN == 0 ]]; then cat "$WORK_DIR/report/report.md"; fi
