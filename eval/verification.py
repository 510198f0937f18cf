"""Score pair sets with a model: ``arcface-plus verify`` for launchers.

torchrun --nproc_per_node=8 eval/verification.py --model RUN --pairs lfw.bin cfp_fp.bin
"""

import sys

from arcface_plus.cli.app import run

if __name__ == "__main__":
    run(["verify", *sys.argv[1:]])
