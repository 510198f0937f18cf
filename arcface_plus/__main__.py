"""``python -m arcface_plus`` is the command ``arcface-plus``."""

from arcface_plus.cli.app import run

if __name__ == "__main__":
    run()
