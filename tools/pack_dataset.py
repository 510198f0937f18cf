"""Pack a folder of aligned faces into InsightFace records: ``arcface-plus data pack``.

python tools/pack_dataset.py FOLDER OUTPUT [--size 112] [--quality 95] [--resize] …
"""

import sys

from arcface_plus.cli.app import run

if __name__ == "__main__":
    run(["data", "pack", *sys.argv[1:]])
