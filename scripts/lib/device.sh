# shellcheck shell=bash
# Purpose: detects the machine: CPU or GPU, support for bfloat16, its name for the report.
# Inputs:  DEVICE, AUTOCAST, FP16, HARDWARE of the configuration; FC_DEVICE, FC_AUTOCAST of run_all.sh, which detects them once.
# Outputs: FC_DEVICE (cpu or gpu), AUTOCAST (none or bfloat16), JOBS, DEVICE_ARGUMENTS and MACHINE_ARGUMENTS.
# Example: device_arguments; run_step ... "${MACHINE_ARGUMENTS[@]}" -- fairseq-generate "${DEVICE_ARGUMENTS[@]}"

# detect_device: sets FC_DEVICE, and resolves AUTOCAST=auto to the type that is fast on this machine. Only AUTOCAST changes
# results; it is part of the commands and so of their fingerprints.
detect_device() {
    if [[ $DEVICE != auto ]]; then
        FC_DEVICE=$DEVICE
    elif [[ -z ${FC_DEVICE:-} ]]; then
        FC_DEVICE=cpu
        if ask_torch 'torch.cuda.is_available()'; then FC_DEVICE=gpu; fi
    fi
    if [[ $AUTOCAST == auto ]]; then
        if [[ -z ${FC_AUTOCAST:-} ]]; then FC_AUTOCAST=$(native_autocast); fi
        AUTOCAST=$FC_AUTOCAST
    fi
    export FC_DEVICE FC_AUTOCAST
}

# ask_torch EXPRESSION: succeeds if the expression is true. It is false without torch, which a dry run does not need.
ask_torch() { "$FC_BIN/python" -c "import sys, torch; sys.exit(not ($1))" 2>/dev/null; }

# native_autocast: prints bfloat16 if the hardware has instructions for it (fairseq_compress/functional/autocast.py); none
# otherwise, with fairseq's own mixed precision, and without torch.
native_autocast() {
    local kind=${FC_DEVICE/gpu/cuda}
    if [[ $FP16 == 1 ]] || ! PYTHONPATH=$ROOT${PYTHONPATH:+:$PYTHONPATH} \
        "$FC_BIN/python" -m fairseq_compress.functional.autocast "$kind" 2>/dev/null; then
        echo none
    fi
}

# device_arguments: sets DEVICE_ARGUMENTS, the arguments for precision and plugin of all fairseq commands, and MACHINE_ARGUMENTS,
# options of run_step for the machine, which are not part of the fingerprint.
device_arguments() {
    detect_device
    DEVICE_ARGUMENTS=(--user-dir "$ROOT/fairseq_compress" --task compressed_translation --autocast-dtype "$AUTOCAST")
    MACHINE_ARGUMENTS=()
    if [[ $FC_DEVICE == cpu ]]; then MACHINE_ARGUMENTS+=(--unhashed --cpu); fi
    if [[ $FP16 == 1 ]]; then DEVICE_ARGUMENTS+=(--fp16); fi
}

# count_cores: prints the number of cores that this process may use.
count_cores() { env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc 2>/dev/null || getconf _NPROCESSORS_ONLN; }

# resolve_jobs: resolves JOBS=auto to the number of parallel trainings, and divides the cores among them. Several small models with
# one thread each are faster in total than one model with all threads.
resolve_jobs() {
    local cores
    cores=$(count_cores)
    if [[ $JOBS == auto ]]; then
        JOBS=1
        if [[ $FC_DEVICE == cpu && -z $SYSTEM ]] && ! is_launched; then JOBS=$((cores < ${#STUDENTS[@]} ? cores : ${#STUDENTS[@]})); fi
    fi
    if ((JOBS > 1)); then
        cores=$((cores / JOBS))
        export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores > 1 ? cores : 1))}
    fi
}

# hardware_name: prints the processor and its cores (and threads, if limited), or the GPU.
hardware_name() {
    local model
    if [[ -n $HARDWARE ]]; then
        echo "$HARDWARE"
    elif [[ $FC_DEVICE == gpu ]]; then
        nvidia-smi --query-gpu=name --format=csv,noheader | head -n 1
    else
        model=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo 2>/dev/null | head -n 1)
        echo "${model:-$(uname -m)}, $(getconf _NPROCESSORS_ONLN) cores${OMP_NUM_THREADS:+, $OMP_NUM_THREADS threads}"
    fi
}
