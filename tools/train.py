"""Train a configuration under a launcher.

torchrun --nproc_per_node=8 tools/train.py configs/casia_r50_arcface_plus.yaml [--optim.lr 0.05 …]
"""

import sys

from arcface_plus.cli.app import run

if __name__ == "__main__":
    run(["train", *sys.argv[1:]])
