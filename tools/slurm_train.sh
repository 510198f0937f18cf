#!/usr/bin/env bash
# Train on several nodes under Slurm: one torchrun a node, one process a GPU.
#
#   sbatch --nodes=2 --gpus-per-node=8 tools/slurm_train.sh configs/casia_r50_arcface_plus.yaml [--a.b value …]
#
# A requeued job continues from its newest checkpoint. Not run here: no cluster to run it on.
#SBATCH --job-name=arcface_plus
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

config=${1:?usage: sbatch tools/slurm_train.sh CONFIG [--a.b value …]}
shift
host=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

srun torchrun \
  --nnodes="$SLURM_NNODES" \
  --nproc_per_node="${SLURM_GPUS_ON_NODE:?ask for GPUs with --gpus-per-node}" \
  --rdzv_id="$SLURM_JOB_ID" \
  --rdzv_backend=c10d \
  --rdzv_endpoint="$host:${PORT:-29500}" \
  tools/train.py "$config" --resume auto "$@"
