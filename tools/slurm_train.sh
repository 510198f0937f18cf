#!/usr/bin/env bash
# Train on several nodes under Slurm: one torchrun a node, one process a GPU.
#
#   sbatch --nodes=2 --gpus-per-node=8 tools/slurm_train.sh configs/casia_r50_arcface_plus.yaml [--a.b value …]
#
# Two minutes before its time ends, or when it is preempted, the run saves its state and stops; the job
# is then queued again and continues there. After a node's failure it continues from its newest
# checkpoint. Tested with stand-ins for Slurm's commands; not run here: no cluster to run it on.
#SBATCH --job-name=arcface_plus
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120
set -euo pipefail

config=${1:?usage: sbatch tools/slurm_train.sh CONFIG [--a.b value …]}
shift
host=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
folder=$(python -c 'import sys, arcface_plus; print(arcface_plus.load_config(sys.argv[1], sys.argv[2:]).folder)' \
  "$config" "$@")

# SIGUSR1 asks the run to stop: torchrun would answer SIGTERM by killing its ranks after 30 s. It ignores
# SIGUSR1 (the trap below), its ranks do not.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1  # else a node that Slurm replaces could not join
trap 'scancel --signal=USR1 "$SLURM_JOB_ID"' TERM
srun bash -c 'trap "" USR1; exec torchrun "$@"' torchrun \
  --nnodes="$SLURM_NNODES" \
  --nproc_per_node="${SLURM_GPUS_ON_NODE:?ask for GPUs with --gpus-per-node}" \
  --rdzv_id="$SLURM_JOB_ID" \
  --rdzv_backend=c10d \
  --rdzv_endpoint="$host:${PORT:-29500}" \
  --max-restarts="${RESTARTS:-3}" \
  tools/train.py "$config" --resume auto "$@" &

# bash runs a trap only between two waits; a wait that a trap interrupted is above 128.
code=0
wait $! || code=$?
while kill -0 $! 2>/dev/null; do
  code=0
  wait $! || code=$?
done
if [[ -e "$folder/requeue" ]]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
