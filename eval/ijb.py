"""Score IJB-B or IJB-C with a model: ``arcface-plus ijb`` for launchers.

torchrun --nproc_per_node=8 eval/ijb.py --model RUN --images loose_crop --meta META --target IJBC
"""

import sys

from arcface_plus.cli.app import run

if __name__ == "__main__":
    run(["ijb", *sys.argv[1:]])
