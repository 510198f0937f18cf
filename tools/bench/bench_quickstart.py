"""Train the quickstart from several seeds and print the README's table.

python tools/bench/bench_quickstart.py [--seeds 0 1 2] [--output runs] [--train.steps N …]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

from arcface_plus.runs.train import train

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "quickstart.yaml"
ROWS = {
    "raw pixels": "raw_pixels",
    "the net before training": "untrained_net",
    "**ArcFace+**": "results",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", default="runs")
    options, overrides = parser.parse_known_args()
    found: dict[str, list[dict[str, float]]] = {row: [] for row in ROWS}
    seconds = []
    for seed in options.seeds:
        words = ["--seed", str(seed), "--name", f"quickstart-{seed}", "--output", options.output]
        began = time.perf_counter()
        folder = train(CONFIG, [*words, *overrides], overwrite=True)
        seconds.append(time.perf_counter() - began)
        measured = json.loads((folder / "verification.json").read_text())
        for row, key in ROWS.items():
            found[row].append(measured[key]["orl"])
    print(f"\nseeds {options.seeds}, {statistics.median(seconds):.0f} s a run\n")
    print("| embedding | accuracy | AUC | of each seed |")
    print("|---|---|---|---|")
    for row, results in found.items():
        accuracy, auc = (statistics.fmean(r[key] for r in results) for key in ("accuracy", "auc"))
        each = ", ".join(f"{r['accuracy']:.3f}/{r['auc']:.3f}" for r in results)
        print(f"| {row} | {accuracy:.3f} | {auc:.3f} | {each} |")


if __name__ == "__main__":
    main()
