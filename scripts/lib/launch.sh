# shellcheck shell=bash disable=SC2034,SC2153
# Purpose: starts a command as several processes, on one or several machines, with torchrun or Slurm's srun.
# Inputs:  PROCESSES, NODES, LAUNCHER, RENDEZVOUS, SRUN_ARGUMENTS of the configuration.
# Outputs: MACHINE_ARGUMENTS with the launcher's command (options of run_step), DISTRIBUTED with the arguments of fairseq-train.
# Example: launch_training; run_step ... "${MACHINE_ARGUMENTS[@]}" -- fairseq-train DATA "${DISTRIBUTED[@]}"
#
# The launcher is not part of the fingerprint. The number of processes, which changes the training, is in DISTRIBUTED and is.

# is_launched: a launcher starts the processes. Without a launcher fairseq-train uses all GPUs of the machine by itself.
is_launched() { ((PROCESSES * NODES > 1)) || [[ $LAUNCHER == srun ]]; }

# launch_training: always passes --distributed-world-size: without it each process of fairseq-train silently trains an independent
# model.
launch_training() {
    local backend=nccl
    DISTRIBUTED=()
    is_launched || return 0
    if [[ $FC_DEVICE == cpu ]]; then backend=gloo; fi
    launcher_words "$PROCESSES"
    before "${LAUNCH[@]}" bash "$LIB/train_process.sh"
    DISTRIBUTED=(
        --distributed-world-size "$((PROCESSES * NODES))" --distributed-init-method env:// --distributed-no-spawn
        --ddp-backend legacy_ddp
    )
    MACHINE_ARGUMENTS+=(--unhashed --distributed-backend --unhashed "$backend")
}

# launch_work: independent processes with a common folder (nbest, cache-teacher, kd-data score). Their number does not change the
# result.
launch_work() {
    local processes=$PROCESSES
    is_launched || processes=$KD_PROCESSES
    if is_launched || ((processes > 1)); then
        launcher_words "$processes"
        before "${LAUNCH[@]}" bash "$LIB/work_process.sh"
    fi
}

# work_arguments: sets MACHINE_ARGUMENTS for such a process; DECODING_PRECISION, the type of the teacher's matrix products in
# decoding; SCORING_PRECISION, their type when probabilities are stored (never int8).
work_arguments() {
    detect_device
    DECODING_PRECISION=$KD_PRECISION
    if [[ $KD_PRECISION == auto ]]; then DECODING_PRECISION=${AUTOCAST/none/float32}; fi
    SCORING_PRECISION=${DECODING_PRECISION/int8/float32}
    MACHINE_ARGUMENTS=(--unhashed --device --unhashed "${FC_DEVICE/gpu/cuda}")
    launch_work
}

# before WORD...: words that run_step puts in front of the command.
before() {
    local word
    for word in "$@"; do MACHINE_ARGUMENTS+=(--before "$word"); done
}

# launcher_words PROCESSES: sets LAUNCH. @NODE_RANK@ stands for the rank of the machine; run_step replaces it when it prints.
launcher_words() {
    local words
    if [[ $LAUNCHER == srun ]]; then
        read -ra words <<<"$SRUN_ARGUMENTS"
        # Without --kill-on-bad-exit the other ranks would wait for a failed rank forever.
        LAUNCH=(srun --nodes "$NODES" --ntasks-per-node "$1" --kill-on-bad-exit=1 "${words[@]}")
        if [[ -n $RENDEZVOUS ]]; then LAUNCH+=(env "MASTER_ADDR=${RENDEZVOUS%:*}" "MASTER_PORT=${RENDEZVOUS##*:}"); fi
        return
    fi
    LAUNCH=("$FC_BIN/torchrun")
    if ((NODES > 1)); then
        LAUNCH+=(--nnodes "$NODES" --node_rank @NODE_RANK@ --master_addr "${RENDEZVOUS%:*}" --master_port "${RENDEZVOUS##*:}")
    fi
    LAUNCH+=(--nproc_per_node "$1" --no-python)
}

# check_launcher: adds problems of these settings for check_config.
check_launcher() {
    check_choice LAUNCHER "$LAUNCHER" torchrun srun
    [[ -z $RENDEZVOUS || $RENDEZVOUS =~ ^[^:]+:[1-9][0-9]*$ ]] || problem RENDEZVOUS "must be HOST:PORT" "$RENDEZVOUS"
    [[ $LAUNCHER == srun || $NODES == 1 || -n $RENDEZVOUS ]] ||
        problem RENDEZVOUS "must be HOST:PORT of the first machine when LAUNCHER is torchrun and NODES is over 1" ""
    if [[ $LAUNCHER == srun && $DRY_RUN == 0 ]] && ! command -v srun >/dev/null; then
        problem LAUNCHER "needs srun, which this machine does not have" "$LAUNCHER"
    fi
    if [[ $JOBS != 1 && $JOBS != auto && ($LAUNCHER == srun || $PROCESSES != 1 || $NODES != 1) ]]; then
        problem JOBS "must be 1 or auto when a launcher starts PROCESSES on NODES machines" "$JOBS"
    fi
    if [[ $KD_PROCESSES != 1 && ($LAUNCHER == srun || $PROCESSES != 1 || $NODES != 1) ]]; then
        problem KD_PROCESSES "must be 1 when a launcher starts PROCESSES on NODES machines, for it starts these too" \
            "$KD_PROCESSES"
    fi
}
