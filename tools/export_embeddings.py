"""Embed a folder, a .rec or a pair set, alone or under a launcher.

torchrun --nproc_per_node=8 tools/export_embeddings.py --model RUN --input DIR --output X.npz
"""

import sys

from arcface_plus.cli.app import run

if __name__ == "__main__":
    run(["embed", *sys.argv[1:]])
