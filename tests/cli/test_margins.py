from __future__ import annotations

import json

import pytest

from arcface_plus.losses.margins.family import Margin


def test_table_says_angle_margins_and_collapse(cli) -> None:
    answer = cli("margins", "advise", "--classes", 85742, "--dim", 512, "--scale", 64)
    assert answer.exit_code == 0, answer.output
    assert "79.00°" in answer.stdout and "39.50°" in answer.stdout
    for words in ("m0 = 0.347", "m1 = 1.833", "m2 = 0.585", "m3 = 0.486", "wc_relu: true"):
        assert words in answer.stdout
    assert answer.stdout.count("likely (loss") == 2  # m0 and m1, without countermeasures
    assert "Caution" not in answer.stdout


def test_json_is_a_margin_of_the_configuration(cli) -> None:
    answer = cli("margins", "advise", "--classes", 10572, "--kind", "arc", "--json")
    content = json.loads(answer.stdout)
    assert content["nearest_angle"] == pytest.approx(80.223, abs=5e-4)
    assert content["target_angle"] == pytest.approx(content["nearest_angle"] / 2)
    (proposal,) = content["proposals"]
    assert proposal["termination_angle"] == pytest.approx(content["target_angle"], abs=1e-5)
    assert Margin(**proposal["margin"]).m2 == proposal["margin"]["m2"]


def test_curves_go_to_a_folder(cli, tmp_path) -> None:
    pytest.importorskip("matplotlib")
    answer = cli(
        "margins", "advise", "--classes", 1000, "--dim", 64, "--output", tmp_path / "out"
    )  # fmt: skip
    assert answer.exit_code == 0, answer.output
    found = {path.name for path in (tmp_path / "out").iterdir()}
    assert found == {"margins.svg", "margins.png", "margins.json"}
    written = json.loads((tmp_path / "out" / "margins.json").read_text())
    assert len(written["proposals"]) == 4
    assert "Caution" in answer.stdout  # 64 dimensions at s = 64: no law of large numbers


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--classes", "1"], "classes is 1"),
        (["--classes", "100", "--kind", "arcs"], "--kind is 'arcs'"),
        (["--classes", "100", "--scale", "1"], "smaller threshold"),
        (["--classes", "100", "--scale", "-3"], "scale is -3"),
        (["--classes", "100", "--dim", "1"], "dim is 1"),
        (["--classes", "100", "--gradient", "0"], "gradient is 0"),
    ],
)
def test_bad_input_is_exit_code_two(cli, words: list[str], message: str) -> None:
    answer = cli("margins", "advise", *words)
    assert answer.exit_code == 2 and message in answer.stderr
