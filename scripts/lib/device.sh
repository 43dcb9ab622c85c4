# shellcheck shell=bash
# Purpose: what this machine has: processor or GPU, bfloat16 or not, its name for the report.
# Inputs:  DEVICE, AUTOCAST, FP16, HARDWARE of the configuration; FC_DEVICE, FC_AUTOCAST of run_all.sh, which asks once a run.
# Outputs: FC_DEVICE (cpu or gpu), AUTOCAST (none or bfloat16), JOBS, DEVICE_ARGUMENTS and MACHINE_ARGUMENTS.
# Example: device_arguments; run_step ... "${MACHINE_ARGUMENTS[@]}" -- fairseq-generate "${DEVICE_ARGUMENTS[@]}"

# detect_device: sets FC_DEVICE, and replaces AUTOCAST=auto by what this machine is fast with. Of the two only AUTOCAST
# changes results; it stands in the commands and so in their fingerprints.
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

# ask_torch EXPRESSION: true or false; false when there is no torch, for a dry run needs none.
ask_torch() { "$FC_BIN/python" -c "import sys, torch; sys.exit(not ($1))" 2>/dev/null; }

# native_autocast: bfloat16 where it is multiplied by instructions of its own (fairseq_compress/functional/autocast.py), none
# with fairseq's own mixed precision and where there is no torch.
native_autocast() {
    local kind=${FC_DEVICE/gpu/cuda}
    if [[ $FP16 == 1 ]] || ! PYTHONPATH=$ROOT${PYTHONPATH:+:$PYTHONPATH} \
        "$FC_BIN/python" -m fairseq_compress.functional.autocast "$kind" 2>/dev/null; then
        echo none
    fi
}

# device_arguments: what every fairseq command needs to know about precision and the plugin, in DEVICE_ARGUMENTS; about the
# machine, in MACHINE_ARGUMENTS, options of run_step that do not enter the fingerprint.
device_arguments() {
    detect_device
    DEVICE_ARGUMENTS=(--user-dir "$ROOT/fairseq_compress" --task compressed_translation --autocast-dtype "$AUTOCAST")
    MACHINE_ARGUMENTS=()
    if [[ $FC_DEVICE == cpu ]]; then MACHINE_ARGUMENTS+=(--unhashed --cpu); fi
    if [[ $FP16 == 1 ]]; then DEVICE_ARGUMENTS+=(--fp16); fi
}

# count_cores: those that this process may use.
count_cores() { env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc 2>/dev/null || getconf _NPROCESSORS_ONLN; }

# resolve_jobs: replaces JOBS=auto by the students that train at a time, and divides the cores among them. Several small models
# with a thread each do more than one with all threads.
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

# hardware_name: processor and cores (and threads, when they are limited), or the GPU.
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
