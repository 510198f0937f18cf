"""How often 95 % intervals hold what the protocol measures on average, in simulated benchmarks.

    python tools/bench/bench_coverage.py [--simulations 200] [--designs lfw orl] [--json out.json]

Scores have person effects: a person's genuine pairs, and the impostor pairs of two people, share
what is peculiar to them. An effect is the standard deviation of that, as a share of the score's:
0.66 is what the raw pixels of the ORL faces show. The truth of a design is the mean over 1 000
benchmarks or more. Bar, from 200 simulations on: the intervals of accuracy that `verify` reports
hold it in 91 to 99 % of the benchmarks.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from arcface_plus.data.sources.orl import orl_pairs
from arcface_plus.evaluation.pairs.comparison import accuracy_difference
from arcface_plus.evaluation.pairs.dependence import Units, find_units
from arcface_plus.evaluation.pairs.intervals import (
    right_decisions,
    score_intervals,
    threshold_at_far,
)
from arcface_plus.evaluation.pairs.roc import tar_at_far
from arcface_plus.evaluation.pairs.tenfold import FoldResult, evaluate_folds
from arcface_plus.evaluation.pairs.verification import t_interval

LOW, HIGH = 0.91, 0.99
TRUTH_FROM = 1000
PRODUCT_DRAWS = 200
FAR = 0.01
# Mean and standard deviation of genuine and impostor distances: about 80, 94 and 99.6 % accuracy.
LEVELS = {
    "80 %": (1.25, 0.3, 1.75, 0.3),
    "94 %": (1.1, 0.25, 1.8, 0.2),
    "99.6 %": (1.0, 0.2, 1.85, 0.12),
}


@dataclass(frozen=True)
class Pairs:
    """Who is in each pair (numbers of people), and which pairs are genuine; a fixed design."""

    a: np.ndarray
    b: np.ndarray
    is_same: np.ndarray
    people: int


def random_design(rng: np.random.Generator, people: int, pairs: int, *, across: bool) -> Pairs:
    """Ten folds of ``pairs`` genuine and impostor pairs; ``people`` a fold, or in all together."""
    a, b, same = [], [], []
    for fold in range(10):
        first = 0 if across else fold * people
        genuine = rng.integers(people, size=pairs)
        left = rng.integers(people, size=pairs)
        right = (left + rng.integers(1, people, size=pairs)) % people
        a.append(first + np.concatenate([genuine, left]))
        b.append(first + np.concatenate([genuine, right]))
        same.append(np.repeat([True, False], pairs))
    total = people if across else 10 * people
    return Pairs(np.concatenate(a), np.concatenate(b), np.concatenate(same), total)


def orl_design(rng: np.random.Generator) -> Pairs:
    """The ten held-out people of the quickstart, all of them in every fold."""
    del rng  # it is fixed
    pairs = orl_pairs()
    names = np.array(pairs.names)
    people, numbers = np.unique(names, return_inverse=True)
    return Pairs(numbers[pairs.index_a], numbers[pairs.index_b], pairs.is_same, len(people))


DESIGNS: dict[str, Callable[[np.random.Generator], Pairs]] = {
    # 6 000 pairs, 5 000 people in one to three pairs each.
    "lfw": lambda rng: random_design(rng, 500, 300, across=False),
    # 7 000 pairs, 500 people, about 20 pairs each.
    "cfp": lambda rng: random_design(rng, 50, 350, across=False),
    # 6 000 pairs, 20 people a fold, 45 pairs each.
    "dense": lambda rng: random_design(rng, 20, 300, across=False),
    # 2 000 pairs of 50 people who are in all folds.
    "shared": lambda rng: random_design(rng, 50, 100, across=True),
    # 900 pairs of 10 people, 135 pairs each.
    "orl": orl_design,
}


def draw_distances(
    rng: np.random.Generator, pairs: Pairs, effect: float, level: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Return distances (N,) by two models that find the same people hard, the second more so."""
    mean_same, deviation_same, mean_other, deviation_other = level
    own, other = rng.normal(0, effect, pairs.people), rng.normal(0, effect, pairs.people)
    person = np.where(pairs.is_same, own[pairs.a], (other[pairs.a] + other[pairs.b]) / math.sqrt(2))
    left = math.sqrt(1 - effect**2)
    mean = np.where(pairs.is_same, mean_same, mean_other)
    deviation = np.where(pairs.is_same, deviation_same, deviation_other)
    noise, more = rng.normal(size=(2, len(mean)))
    first = mean + deviation * (person + left * noise)
    second = mean + deviation * (person + left * (0.8 * noise + 0.6 * more)) * 1.1
    return first, second


def people_bootstrap(
    rng: np.random.Generator, right: np.ndarray, pairs: Pairs
) -> tuple[float, float]:
    """Return the percentile interval over draws of people, a pair as often as both were drawn."""
    n = pairs.people
    counts = np.stack(
        [np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(PRODUCT_DRAWS)]
    )
    drawn = np.where(
        pairs.is_same, counts[:, pairs.a], counts[:, pairs.a] * counts[:, pairs.b]
    ).astype(np.float64)
    rates = [
        (drawn[:, kind] @ right[kind]) / drawn[:, kind].sum(axis=1)
        for kind in (pairs.is_same, ~pairs.is_same)
    ]
    low, high = np.quantile(np.mean(rates, axis=0), [0.025, 0.975])
    return float(low), float(high)


Ends = dict[str, tuple[float, float]]


def estimates(
    distances: np.ndarray, is_same: np.ndarray, first: FoldResult, second: FoldResult
) -> dict[str, float]:
    """Return what the intervals are about."""
    found = tar_at_far(distances[is_same], distances[~is_same], [FAR])
    accuracy = float(first.accuracies.mean())
    return {
        "accuracy": accuracy,
        "tar": found.tar_at_far[FAR],
        "difference": accuracy - float(second.accuracies.mean()),
        "threshold": found.tar_thresholds[FAR],
    }


def intervals(
    rng: np.random.Generator,
    pairs: Pairs,
    units: Units,
    both: tuple[np.ndarray, np.ndarray],
    results: tuple[FoldResult, FoldResult],
) -> dict[str, Ends]:
    """Return quantity -> method -> interval."""
    distances, result = both[0], results[0]
    found = score_intervals(distances, pairs.is_same, result.thresholds, units, fars=[FAR])
    right = right_decisions(distances, pairs.is_same, result.thresholds)
    compared = accuracy_difference(
        distances, result.thresholds, both[1], results[1].thresholds, pairs.is_same, units
    )
    advice = threshold_at_far(distances, pairs.is_same, units, FAR)
    tar = found.tar[0]
    return {
        "accuracy": {
            "reported": found.accuracy,
            "bootstrap over pairs": found.pairs_claim,
            "bootstrap over people": people_bootstrap(rng, right, pairs),
            "t over folds": t_interval(result.accuracies),
        },
        "tar": {"reported": (float(tar[0]), float(tar[1]))},
        "difference": {"reported": compared.interval},
        "threshold": {"reported": advice.threshold_interval},
    }


def simulate(
    design: str, effect: float, level: tuple[float, ...], simulations: int, seed: int
) -> list[dict[str, object]]:
    """Return a row a quantity and method: coverage and mean width."""
    rng = np.random.default_rng(seed)
    pairs = DESIGNS[design](rng)
    names = [str(person) for person in pairs.a], [str(person) for person in pairs.b]
    units = find_units(pairs.is_same, people=names)
    values: list[dict[str, float]] = []
    ends: list[dict[str, Ends]] = []
    for number in range(max(simulations, TRUTH_FROM)):
        both = draw_distances(rng, pairs, effect, level)
        first, second = (evaluate_folds(each, pairs.is_same) for each in both)
        values.append(estimates(both[0], pairs.is_same, first, second))
        if number < simulations:
            ends.append(intervals(rng, pairs, units, both, (first, second)))
    rows: list[dict[str, object]] = []
    for quantity, methods in ends[0].items():
        truth = float(np.mean([value[quantity] for value in values]))
        for method in methods:
            low, high = np.array([each[quantity][method] for each in ends]).T
            rows.append(
                {
                    "design": design,
                    "effect": effect,
                    "quantity": quantity,
                    "method": method,
                    "truth": truth,
                    "coverage": float(np.mean((low <= truth) & (truth <= high))),
                    "width": float(np.mean(high - low)),
                }
            )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=200)
    parser.add_argument("--designs", nargs="+", choices=DESIGNS, default=list(DESIGNS))
    parser.add_argument("--effects", nargs="+", type=float, default=[0.0, 0.5, 0.66])
    parser.add_argument("--levels", nargs="+", choices=LEVELS, default=list(LEVELS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the results there as well")
    options = parser.parse_args()
    rows: list[dict[str, object]] = []
    start = time.perf_counter()
    print("| design | level | effect | quantity | method | coverage | mean width |")
    print("|---|---|---:|---|---|---:|---:|")
    for design, level, effect in itertools.product(
        options.designs, options.levels, options.effects
    ):
        for row in simulate(design, effect, LEVELS[level], options.simulations, options.seed):
            rows.append({**row, "level": level})
            print(
                f"| {design} | {level} | {effect} | {row['quantity']} | {row['method']} "
                f"| {100 * float(str(row['coverage'])):.1f} % | {row['width']:.4f} |",
                flush=True,
            )
    reported = [
        float(str(row["coverage"]))
        for row in rows
        if (row["quantity"], row["method"]) == ("accuracy", "reported")
    ]
    held = sum(LOW <= coverage <= HIGH for coverage in reported)
    print(
        f"\nReported intervals of accuracy hold the truth in {min(reported):.1%} to "
        f"{max(reported):.1%} of {options.simulations} benchmarks; {held} of {len(reported)} are "
        f"within {LOW:.0%} to {HIGH:.0%}; {time.perf_counter() - start:.0f} s"
    )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    full = options.simulations >= parser.get_default("simulations")
    return int(full and held < len(reported))


if __name__ == "__main__":
    raise SystemExit(main())
