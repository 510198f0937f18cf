"""Compare size, CPU time and accuracy of fp32, fp16 and int8 ONNX files of one network, in one run.

    python tools/bench/bench_export.py [--model M --calibrate IMAGES] [--pairs LIST --root IMAGES]

Without --model it is a MobileFaceNet with random weights, calibrated on noise, whose accuracy means
nothing. Times are CPU times of one thread, medians of repeats that alternate between the files.
Bars: fp16 at most 0.55 and int8 at most 0.40 of fp32's bytes; with --pairs, from 1 000 pairs on, at
most 0.05 points of accuracy lost by fp16 and less than 0.3 by int8.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from arcface_plus.data.collections import open_collection
from arcface_plus.data.pairs.sets import load_pairs
from arcface_plus.evaluation.embedding.embed import EmbeddingOptions
from arcface_plus.evaluation.scoring import Scoring
from arcface_plus.export.model import scorer
from arcface_plus.export.onnx_file import export_onnx
from arcface_plus.models import build_model, load_model
from arcface_plus.models.embedding_model import EmbeddingModel
from arcface_plus.models.preprocessing import INSIGHTFACE, Preprocessing

SIZES = {"fp16": 0.55, "int8": 0.40}
LOSSES = {"fp16": 0.05, "int8": 0.3}
FEWEST_PAIRS = 1_000


def open_model(options: argparse.Namespace) -> tuple[EmbeddingModel, Any]:
    """Return the network and the images to calibrate it on."""
    if options.model is None:
        torch.manual_seed(0)
        noise = np.random.default_rng(0).integers(0, 256, (16, 112, 112, 3), dtype=np.uint8)
        return build_model("mobilefacenet").eval(), noise
    stated = None
    if options.preprocessing is not None:
        foreign = options.preprocessing == "insightface"
        stated = INSIGHTFACE if foreign else Preprocessing.from_json(options.preprocessing)
    return load_model(options.model, preprocessing=stated), open_collection(
        options.calibrate
    ).images


def milliseconds(files: dict[str, Path], batch: int, repeats: int) -> dict[str, float]:
    """Return the median CPU time of an image with each file."""
    choice = onnxruntime.SessionOptions()
    choice.intra_op_num_threads = 1
    sessions = {
        name: onnxruntime.InferenceSession(str(file), choice, providers=["CPUExecutionProvider"])
        for name, file in files.items()
    }
    times: dict[str, list[float]] = {name: [] for name in files}
    rng = np.random.default_rng(1)
    for repeat in range(repeats + 1):
        for name, session in sessions.items():
            given = session.get_inputs()[0]
            x = rng.uniform(-1, 1, (batch, *given.shape[1:])).astype(np.float32)
            start = time.process_time()
            session.run(None, {given.name: x})
            if repeat:  # the first warms up
                times[name].append(1000 * (time.process_time() - start) / batch)
    return {name: statistics.median(each) for name, each in times.items()}


def accuracies(
    options: argparse.Namespace, model: EmbeddingModel, files: dict[str, Path]
) -> dict[str, dict[str, Any]]:
    """Return accuracy, points lost and their 95 % interval of each file but fp32's, the source."""
    pairs = [(options.pairs, load_pairs(options.pairs, options.root))]
    how = EmbeddingOptions(flip=model.preprocessing.flip_sum, device="cpu")
    score = scorer(
        files["fp32"], model, pairs, Scoring(), how, lambda _: nullcontext(lambda *_: None)
    )
    found: dict[str, dict[str, Any]] = {}
    for name in ("fp16", "int8"):
        (entry,) = score(files[name])
        (compared,) = entry.others
        found["fp32"] = {"accuracy": compared.entry.section.result.accuracy}
        found[name] = {
            "accuracy": entry.section.result.accuracy,
            "points_lost": -100 * compared.difference.difference,
            "interval": [-100 * end for end in reversed(compared.difference.interval)],
        }
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="run folder, weights or ONNX file")
    parser.add_argument("--preprocessing", help="of a file that does not state it")
    parser.add_argument("--calibrate", type=Path, help="aligned faces; needed with --model")
    parser.add_argument("--pairs", type=Path)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    if (options.model is None) != (options.calibrate is None):
        parser.error("give --model and --calibrate together")
    model, images = open_model(options)
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{name}.onnx" for name in ("fp32", "fp16", "int8")}
        whole = load_model(export_onnx(model, files["fp32"]))
        export_onnx(whole, files["fp16"], precision="fp16")
        export_onnx(whole, files["int8"], precision="int8", calibration=images)
        sizes = {name: file.stat().st_size for name, file in files.items()}
        times = milliseconds(files, options.batch, options.repeats)
        scores = accuracies(options, whole, files) if options.pairs else {}
    print(f"{'':<6}{'bytes':>12}{'ratio':>7}{'ms/image':>10}{'ratio':>7}  accuracy (points lost)")
    for name in files:
        shares = sizes[name] / sizes["fp32"], times[name] / times["fp32"]
        line = f"{name:<6}{sizes[name]:>12,}{shares[0]:>7.2f}{times[name]:>10.2f}{shares[1]:>7.2f}"
        if name in scores:
            line += f"  {scores[name]['accuracy']:.5f}"
        if "interval" in scores.get(name, {}):
            low, high = scores[name]["interval"]
            line += f" ({scores[name]['points_lost']:+.3f}, {low:+.3f} to {high:+.3f})"
        print(line)
    print(json.dumps({"bytes": sizes, "milliseconds": times, "scores": scores}))
    missed = [name for name, bar in SIZES.items() if sizes[name] > bar * sizes["fp32"]]
    if scores and len(load_pairs(options.pairs, options.root)) >= FEWEST_PAIRS:
        missed += [name for name, bar in LOSSES.items() if scores[name]["points_lost"] > bar]
    return int(bool(missed))


if __name__ == "__main__":
    raise SystemExit(main())
