# shellcheck shell=bash
# Purpose: determines the rank of this process, started by torchrun or by srun.
# Inputs:  RANK, LOCAL_RANK, WORLD_SIZE of torchrun; or SLURM_PROCID, SLURM_LOCALID, SLURM_NTASKS of srun.
# Outputs: RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT in the environment.
# Example: source "$LIB/rank.sh"; echo "$RANK of $WORLD_SIZE"

if [[ -z ${RANK:-} ]]; then
    RANK=${SLURM_PROCID:?torchrun sets RANK, srun sets SLURM_PROCID}
    LOCAL_RANK=${SLURM_LOCALID:?srun sets it}
    WORLD_SIZE=${SLURM_NTASKS:?srun sets it}
    # The processes connect to the machine of rank 0, the first of the step; each step has its own port.
    if [[ -z ${MASTER_ADDR:-} ]]; then
        MASTER_ADDR=$(scontrol show hostnames "${SLURM_STEP_NODELIST:?srun sets it}" | head -n 1)
        MASTER_PORT=$((20000 + (7 * ${SLURM_JOB_ID:-0} + ${SLURM_STEP_ID:-0}) % 10000))
    fi
    export RANK LOCAL_RANK WORLD_SIZE MASTER_ADDR MASTER_PORT
fi
