from __future__ import annotations

import json

import pytest

from arcface_plus.studies.theory import region_figures, uniform_figures
from arcface_plus.studies.theory.figures import FIGURES, check_names, draw_theory

pytest.importorskip("matplotlib")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same figures from fewer samples and pixels."""
    monkeypatch.setattr(uniform_figures, "SAMPLED_CLASSES", (100, 300, 2000))
    monkeypatch.setattr(uniform_figures, "CLASSES", 2000)
    monkeypatch.setattr(uniform_figures, "SAMPLED_ROWS", 64)
    monkeypatch.setattr(region_figures, "_PIXELS", 40)


@pytest.mark.slow
def test_all_figures(small, tmp_path) -> None:
    met: list[tuple[int, int]] = []
    numbers = draw_theory(tmp_path, seed=3, progress=lambda *counts: met.append(counts))
    assert set(numbers) == set(FIGURES) and met[-1] == (13, 13)
    for name in FIGURES:
        for suffix in ("svg", "png"):
            assert (tmp_path / f"{name}.{suffix}").stat().st_size > 5000
    assert numbers["fig7"]["sampled"]["2000"] == pytest.approx(numbers["fig7"]["exact"], abs=0.4)
    assert numbers["fig10"]["sampled_mean"] == pytest.approx(numbers["fig10"]["exact"], rel=0.5)
    assert numbers["fig18"]["ArcFace"]["cap_half_angle"] == pytest.approx(22.13, abs=5e-3)
    assert numbers["fig15"]["none"]["blank_share"] == 0
    caps = numbers["fig9"]["d512"]["60"]
    assert caps["mean"] == pytest.approx(caps["exact_mean"], abs=0.05)
    json.dumps(numbers, allow_nan=False)


def test_names_are_put_in_order_and_checked() -> None:
    assert check_names([]) == tuple(FIGURES)
    assert check_names(["fig9", "fig7", "fig9"]) == ("fig7", "fig9")
    with pytest.raises(ValueError, match=r"'fig77' is no figure .* fig7"):
        check_names(["fig77"])


def test_command_draws_what_is_named(cli, tmp_path) -> None:
    answer = cli("study", "theory", "--output", tmp_path / "out", "--only", "figA2", "fig8")
    assert answer.exit_code == 0, answer.output
    assert "wrote 2 figures" in answer.stdout
    found = {path.name for path in (tmp_path / "out").iterdir()}
    assert found == {"fig8.svg", "fig8.png", "figA2.svg", "figA2.png", "theory.json"}
    numbers = json.loads((tmp_path / "out" / "theory.json").read_text())
    assert numbers["fig8"]["log10_mass_60"] == pytest.approx(-33.38, abs=5e-3)
    assert numbers["seed"] == 0


def test_command_refuses(cli, tmp_path) -> None:
    answer = cli("study", "theory", "--output", tmp_path, "--only", "fig6")
    assert answer.exit_code == 2 and "no figure of the theory" in answer.stderr
    answer = cli("study", "theory", "--output", tmp_path, "fig7")
    assert answer.exit_code == 2 and "--only fig7" in answer.stderr
    assert not list(tmp_path.iterdir())


def test_one_seed_gives_the_same_bytes(small, tmp_path) -> None:
    for name in ("a", "b"):
        draw_theory(tmp_path / name, ["fig9"], seed=1)
    first, second = ((tmp_path / name / "fig9.svg").read_bytes() for name in "ab")
    assert first == second
