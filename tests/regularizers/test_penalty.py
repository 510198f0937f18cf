"""A penalty by name is the function of that name, and takes its options alone."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from arcface_plus.regularizers import energies, mma, orthogonal, regularface, smooth_mma
from arcface_plus.regularizers.penalty import KINDS, AngularPenalty

WEIGHT = torch.randn(12, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def drawn(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


CALLS = {
    "mma": (AngularPenalty(), lambda: mma.mma_loss(WEIGHT)),
    "mma rows": (
        AngularPenalty(rows=4),
        lambda: mma.mma_loss(WEIGHT, rows=4, generator=drawn()),
    ),
    "cosine": (AngularPenalty("cosine"), lambda: energies.cosine_loss(WEIGHT)),
    "riesz": (AngularPenalty("riesz", s=0.5), lambda: energies.riesz_loss(WEIGHT, 0.5)),
    "log": (AngularPenalty("log"), lambda: energies.log_loss(WEIGHT)),
    "mhe": (
        AngularPenalty("mhe", s=0, fraction=0.5, half_space=True),
        lambda: energies.mhe_loss(WEIGHT, s=0, fraction=0.5, half_space=True, generator=drawn()),
    ),
    "orthogonal": (AngularPenalty("orthogonal"), lambda: orthogonal.orthogonal_loss(WEIGHT)),
    "regularface": (AngularPenalty("regularface"), lambda: regularface.regularface_loss(WEIGHT)),
    "smooth_mma": (
        AngularPenalty("smooth_mma", temperature=0.3),
        lambda: smooth_mma.smooth_mma_loss(WEIGHT, temperature=0.3),
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_is_the_function_of_its_name(name: str) -> None:
    penalty, expected = CALLS[name]
    assert torch.equal(penalty(WEIGHT, generator=drawn()), expected())


def test_every_kind_is_covered_and_computes() -> None:
    assert {penalty.kind for penalty, _ in CALLS.values()} == set(KINDS)
    for kind in KINDS:
        assert AngularPenalty(kind)(WEIGHT).isfinite()


def test_randomness_and_sums() -> None:
    random = {name for name, (penalty, _) in CALLS.items() if penalty.is_random}
    assert random == {"mma rows", "mhe"}
    assert {kind for kind in KINDS if AngularPenalty(kind).sums_pairs} == {"orthogonal"}


@pytest.mark.parametrize(
    ("kind", "option", "value"),
    [
        ("mma", "s", 1.0), ("mma", "fraction", 0.3), ("mma", "half_space", True),
        ("mma", "temperature", 1.0), ("cosine", "rows", 4), ("riesz", "fraction", 0.5),
        ("riesz", "half_space", True), ("log", "s", 1.0), ("mhe", "rows", 4),
        ("mhe", "temperature", 1.0), ("orthogonal", "s", 0.0), ("regularface", "rows", 1),
        ("smooth_mma", "rows", 4),
    ],
)  # fmt: skip
def test_an_option_that_does_nothing_is_refused(kind: str, option: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{option} does nothing for the kind '{kind}'.*takes it"):
        AngularPenalty(kind, **{option: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "MMA"}, "kind is 'MMA', but must be one of mma, cosine"),
        ({"kind": "riesz", "s": 0.0}, "s is 0.0, but must be above 0"),
        ({"kind": "mhe", "s": -1.0}, "s is -1.0"),
        ({"kind": "mhe", "fraction": 0.0}, "fraction is 0.0"),
        ({"kind": "mhe", "half_space": 2}, "half_space is 2, but must be True or False"),
        ({"kind": "smooth_mma", "temperature": 0.0}, "temperature is 0.0"),
        ({"rows": 0}, "rows is 0, but must be an integer from 1"),
        ({"rows": 2.5}, "rows is 2.5"),
        ({"rows": True}, "rows is True"),
    ],
)
def test_values_out_of_range_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AngularPenalty(**options)


def test_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        AngularPenalty().kind = "log"  # type: ignore[misc]
