"""Rows and seeds from the words of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from arcface_plus.settings import parse_overrides
from arcface_plus.studies.repeats.vary import parse_variation, runs_of, seed_list, varied_rows


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a.b=0,0.03", ("0", "0.03")),
        ("a.b= 1e-4 , null ,x", ("1e-4", "null", "x")),
        ("a.b={m2: 0.5, s: 32},{m2: 0.3}", ("{m2: 0.5, s: 32}", "{m2: 0.3}")),
        ("a.b=[1, 2],[3]", ("[1, 2]", "[3]")),
        ("a.b='x, y',\"z\"", ("'x, y'", '"z"')),
        ("--a.b=-1", ("-1",)),
        ("a.b=20 epochs,40 epochs", ("20 epochs", "40 epochs")),
        ("a.b=x=1,y", ("x=1", "y")),
    ],
)
def test_values_are_yaml_as_overrides_are(text: str, values: tuple[str, ...]) -> None:
    variation = parse_variation(text)
    assert variation == ("a.b", values)
    for row, value in zip(varied_rows(Path("c.yaml"), [variation]), values, strict=True):
        assert parse_overrides(row.overrides) == [(("a", "b"), yaml.safe_load(value))]


@pytest.mark.parametrize(
    "text", ["", "a.b", "=1", "a.b=", "a.b=[1", "a.b=0]", "a.b=1,1", "a.b=1],[2", "a.b=x: y: z"]
)
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="--vary"):
        parse_variation(text)


def test_rows_are_every_combination_and_runs_have_a_name_each() -> None:
    variations = [parse_variation("head.mma_weight=0,0.03"), parse_variation("optim.lr=0.1,0.2")]
    rows = varied_rows(Path("c/x.yaml"), variations)
    assert [row.label for row in rows] == [
        "head.mma_weight=0, optim.lr=0.1",
        "head.mma_weight=0, optim.lr=0.2",
        "head.mma_weight=0.03, optim.lr=0.1",
        "head.mma_weight=0.03, optim.lr=0.2",
    ]
    runs = runs_of(Path("c/x.yaml"), variations, [1, 5])
    assert len({run.name for run in runs}) == 8
    assert runs[5].name == "x-head.mma_weight-0-optim.lr-0.2-seed5"
    assert runs[5].config == Path("c/x.yaml") and runs[5].seed == 5
    assert runs[5].overrides == ["--head.mma_weight=0", "--optim.lr=0.2", "--seed", "5"]
    [alone] = runs_of(Path("x.yaml"), [], [3])
    assert (alone.label, alone.name) == ("x", "x-seed3")


def test_what_would_make_one_run_of_two_is_refused() -> None:
    with pytest.raises(ValueError, match="names a setting twice"):
        varied_rows(Path("x.yaml"), [parse_variation("a=1"), parse_variation("a=2")])
    with pytest.raises(ValueError, match="one name"):
        varied_rows(Path("x.yaml"), [parse_variation("a=[1, 2],[1 2]")])
    with pytest.raises(ValueError, match="must be a YAML file"):
        varied_rows(Path("x"), [])


@pytest.mark.parametrize(
    ("text", "seeds"), [("3", [1, 2, 3]), ("1,5,7", [1, 5, 7]), ("7,", [7]), (" 2 , 4", [2, 4])]
)
def test_seeds_are_how_many_or_which(text: str, seeds: list[int]) -> None:
    assert seed_list(text) == seeds


@pytest.mark.parametrize("text", ["", "0", "-3", "x", "1,x", "1,1", ",", "1.5"])
def test_no_seeds_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="--seeds"):
        seed_list(text)
