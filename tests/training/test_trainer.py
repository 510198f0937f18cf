from __future__ import annotations

import json
import math
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from arcface_plus import load_model
from arcface_plus.checkpoints.copying import HostCopy
from arcface_plus.checkpoints.reading import fingerprint
from arcface_plus.data.pairs.sets import save_pairs_bin
from arcface_plus.evaluation.hooks import PairEvaluation
from arcface_plus.runs.configuration import load_config
from arcface_plus.runs.folder import check_resumable
from arcface_plus.runs.train import train
from arcface_plus.training.health.guard import NonFiniteError


def lines(folder: Path, kind: str = "train") -> list[dict]:
    entries = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [entry for entry in entries if entry["kind"] == kind]


def state(folder: Path) -> dict[str, torch.Tensor]:
    return load_model(folder).state_dict()


def test_leaves_a_run_folder(tiny: Path) -> None:
    folder = train(tiny)
    for name in ("config.yaml", "environment.json", "metrics.jsonl", "README.md"):
        assert (folder / name).is_file(), name
    assert any((folder / "tensorboard").iterdir())
    assert [p.name for p in sorted((folder / "checkpoints").iterdir())] == [
        "step-00000003",
        "step-00000006",
    ]
    logged = lines(folder)
    assert [entry["step"] for entry in logged] == [1, 2, 3, 4, 5, 6]
    for key in ("loss", "mma", "nearest_angle", "lr", "images_per_second", "data_wait"):
        assert all(math.isfinite(entry[key]) for entry in logged), key
    for entry in logged:
        shares = {k: v for k, v in entry.items() if k == "data_wait" or k.endswith("_share")}
        parts = {"forward_share", "backward_share", "optimizer_share", "mma_share", "data_wait"}
        assert shares.keys() == parts and all(shares.values()), "one rank does not communicate"
        assert sum(shares.values()) <= 1 + 1e-6
    model = load_model(folder)
    assert not model.training and model.preprocessing.size == 32


@pytest.mark.parametrize("accumulate", [1, 2])
def test_logs_what_a_margin_keeps_and_costs(tiny: Path, accumulate: int) -> None:
    words = ["--head.margin", "{}", "--train.accumulate", str(accumulate), "--name"]
    magface = "{kind: magface, penalty: 35, s: 32}"
    folder = train(tiny, [*words, "mag", "--head.adaptive", magface, "--head.mma_weight", "0"])
    for entry in lines(folder):
        total = entry["classification"] + 35 * entry["norm_penalty"]
        assert entry["loss"] == pytest.approx(total, rel=1e-6)
        assert entry["quality"] > 0 and "mma" not in entry
        a, u_a = min(max(entry["quality"], 10), 110), 110
        assert entry["norm_penalty"] == pytest.approx(1 / a + a / u_a**2, rel=0.05)
    folder = train(tiny, [*words, "curricular", "--head.adaptive", "{kind: curricularface, s: 32}"])
    t = 0.0
    for entry in lines(folder):
        # A step moves t by the mean own cosine, which the mean own angle nearly tells.
        t = 0.99 * t + 0.01 * math.cos(math.radians(entry["target_angle"]))
        assert entry["margin_t"] == pytest.approx(t, abs=2e-3)
        assert "quality" not in entry and "norm_penalty" not in entry
    folder = train(tiny, [*words, "uni", "--head.adaptive", "{kind: uniface, s: 32}"])
    thresholds = [entry["margin_threshold"] for entry in lines(folder)]
    assert all(map(math.isfinite, thresholds)) and len(set(thresholds)) == len(thresholds)


def test_same_seed_same_bits_and_other_seed_others(tiny: Path) -> None:
    first, again = train(tiny), train(tiny, ["--name", "again"])
    other = train(tiny, ["--name", "other", "--seed", "2"])
    a, b, c = state(first), state(again), state(other)
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not torch.equal(a["conv1.weight"], c["conv1.weight"])


def test_resumed_run_equals_the_uninterrupted_one(tiny: Path) -> None:
    whole = train(tiny, ["--model.dropout", "0.3"])
    cut = whole.parent / "cut"
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "checkpoints" / "step-00000006")
    train(tiny, ["--model.dropout", "0.3", "--name", "cut"], resume="auto")
    a, b = state(whole), state(cut)
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert [e["loss"] for e in lines(cut)] == [e["loss"] for e in lines(whole)]


def test_reused_neighbours_resume_exactly(tiny: Path) -> None:
    options = ["--head.mma_refresh_every", "4"]
    whole = train(tiny, options)
    cut = whole.parent / "cut"
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "checkpoints" / "step-00000006")
    train(tiny, [*options, "--name", "cut"], resume="auto")
    assert [e["mma"] for e in lines(cut)] == [e["mma"] for e in lines(whole)]


def test_saving_beside_training_changes_neither(tiny: Path, monkeypatch) -> None:
    """Also where the copy is slow: it is still of the step that it is saved as."""
    seldom = train(tiny, ["--name", "seldom"])
    real = HostCopy._copy

    def slow(self: HostCopy) -> None:
        time.sleep(0.1)  # longer than a forward and backward pass
        real(self)

    monkeypatch.setattr(HostCopy, "_copy", slow)
    often = train(tiny, ["--name", "often", "--train.checkpoint_every", "1"])
    a, b = state(seldom), state(often)
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert [e["loss"] for e in lines(often)] == [e["loss"] for e in lines(seldom)]
    cut = often.parent / "cut"
    shutil.copytree(often, cut)
    shutil.rmtree(cut / "checkpoints" / "step-00000006")
    train(tiny, ["--name", "cut"], resume="auto")
    c = state(cut)
    assert all(torch.equal(a[key], c[key]) for key in a)


def test_every_nth_checkpoint_stays_for_good(tiny: Path) -> None:
    words = ["--train.checkpoint_every", "1", "--train.keep_checkpoints", "1"]
    folder = train(tiny, [*words, "--train.keep_every", "2"])
    kept = sorted(p.name for p in (folder / "checkpoints").iterdir())
    assert kept == ["step-00000002", "step-00000004", "step-00000006"]
    with pytest.raises(ValueError, match=r"keep_every is 3, but must be a multiple of .* \(2\)"):
        train(tiny, ["--train.checkpoint_every", "2", "--train.keep_every", "3"])


BRANCH = ["--branch.enabled", "true", "--branch.classes", "3", "--branch.hard_classes", "4"]


def _forget(checkpoint: Path, *keys: str) -> None:
    """Make ``checkpoint`` one of before there was the setting ``keys``."""
    saved = json.loads((checkpoint / "state.json").read_text())
    section = saved["config"]
    for key in keys[:-1]:
        section = section[key]
    del section[keys[-1]]
    (checkpoint / "state.json").write_text(json.dumps(saved))
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    manifest["files"]["state.json"] = fingerprint(checkpoint / "state.json")
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))


def test_resume_refuses_other_settings_and_damage(tiny: Path) -> None:
    folder = train(tiny, ["--train.steps", "3"])
    with pytest.raises(ValueError, match=r"optim\.lr: 0\.05 → 0\.01"):
        train(tiny, ["--optim.lr", "0.01"], resume="auto")
    newest = folder / "checkpoints" / "step-00000003"
    _forget(newest, "head", "sample_rate")
    _forget(newest, "head", "margin", "warmup_steps")
    _forget(newest, "branch")
    with pytest.raises(ValueError, match=r"head\.sample_rate: 1\.0 → 0\.5"):
        train(tiny, ["--head.sample_rate", "0.5"], resume="auto")
    with pytest.raises(ValueError, match=r"branch\.enabled: False → True"):
        train(tiny, BRANCH, resume="auto")
    with pytest.raises(ValueError, match=r"head\.margin: .*'warmup_steps': 0.*'warmup_steps': 9"):
        train(tiny, ["--head.margin.warmup_steps", "9"], resume="auto")
    check_resumable(newest, load_config(tiny, ["--train.steps", "3"]))  # defaults stand for them
    part = next(newest.glob("__*"))
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    with pytest.raises(ValueError, match=r"is damaged .* older checkpoint"):
        train(tiny, ["--train.steps", "3"], resume=str(newest))
    with pytest.raises(ValueError, match=r"no checkpoint .* is whole: .* is damaged"):
        train(tiny, ["--train.steps", "3"], resume="auto")


def test_a_refused_resume_changes_nothing(tiny: Path) -> None:
    folder = train(tiny)
    before = {p: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    with pytest.raises(ValueError, match="other settings"):
        train(tiny, ["--schedule.warmup_steps", "0"], resume="auto")
    assert {p: p.read_bytes() for p in folder.iterdir() if p.is_file()} == before


def test_resuming_a_finished_run_scores_it_again_and_keeps_its_history(
    tiny: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    faces = [rng.integers(0, 256, (32, 32, 3), dtype=np.uint8) for _ in range(20)]
    save_pairs_bin(
        tmp_path / "p.bin", [f for x in faces for f in (x, x)] + faces * 2, [True, False] * 20
    )
    options = ["--evaluation.sets.p", str(tmp_path / "p.bin"), "--evaluation.at_start", "true"]
    options += ["--evaluation.every", "3"]
    folder = train(tiny, options)
    first = json.loads((folder / "verification.json").read_text())
    assert [entry["step"] for entry in first["history"]] == [0, 3, 6]
    train(tiny, options, resume="auto")
    again = json.loads((folder / "verification.json").read_text())
    assert again["results"] == first["results"]
    assert again["untrained_net"] == first["untrained_net"]
    assert [entry["step"] for entry in again["history"]][:3] == [0, 3, 6]


def test_a_used_folder_is_not_overwritten_unasked(tiny: Path) -> None:
    folder = train(tiny, ["--train.steps", "3"])
    before = (folder / "metrics.jsonl").read_bytes()
    with pytest.raises(ValueError, match=r"already holds a run .* --resume auto"):
        train(tiny, ["--train.steps", "3"])
    assert (folder / "metrics.jsonl").read_bytes() == before
    train(tiny, ["--train.steps", "4"], overwrite=True)
    assert [e["step"] for e in lines(folder)] == [1, 2, 3, 4]


def test_accumulation_is_the_whole_batch(tiny: Path) -> None:
    still = ["--train.freeze_batch_norm", "true", "--optim.clip_norm", "1.0"]
    whole = train(tiny, still)
    parts = train(tiny, [*still, "--name", "parts", "--train.accumulate", "3"])
    for key in ("loss", "mma", "target_angle"):
        want = [entry[key] for entry in lines(whole)]
        assert [entry[key] for entry in lines(parts)] == pytest.approx(want, rel=2e-5)


def test_frozen_statistics_stay(tiny: Path) -> None:
    folder = train(tiny, ["--train.freeze_batch_norm", "true"])
    model = state(folder)
    assert (model["bn1.running_mean"] == 0).all() and (model["bn1.running_var"] == 1).all()


def test_clipping_bounds_the_step(tiny: Path) -> None:
    """With a tiny clip norm and no decay, weights hardly move."""
    start = train(tiny, ["--name", "start", "--train.steps", "1", "--optim.lr", "1e-12",
                         "--schedule.warmup_steps", "0"])  # fmt: skip
    moved = train(tiny, ["--train.steps", "1", "--optim.clip_norm", "1e-3", "--optim.lr", "1",
                         "--optim.weight_decay", "0", "--schedule.warmup_steps", "0"])  # fmt: skip
    a, b = state(start), state(moved)
    weights = [k for k in a if k.endswith(("weight", "bias"))]
    distance = sum((a[k] - b[k]).square().sum() for k in weights).sqrt().item()
    assert 0 < distance <= 1.01e-3


def test_lambda_zero_is_no_penalty_at_all(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without = train(tiny, ["--head.mma_weight", "0"])
    assert all("mma" not in entry for entry in lines(without))
    assert all(e["loss"] == e["classification"] for e in lines(without))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_trains_and_resumes(tiny: Path, precision: str) -> None:
    options = ["--train.precision", precision]
    whole = train(tiny, options)
    cut = whole.parent / "cut"
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "checkpoints" / "step-00000006")
    train(tiny, [*options, "--name", "cut"], resume="auto")
    a, b = state(whole), state(cut)
    assert all(torch.equal(a[key], b[key]) for key in a)
    if precision == "fp16":
        assert lines(whole)[-1]["loss_scale"] > 0


def test_non_finite_loss_stops_and_names_the_step_and_images(tiny: Path) -> None:
    with pytest.raises(NonFiniteError, match=r"step \d: .*synthetic image \d+") as caught:
        train(tiny, ["--optim.lr", "1e30"])
    assert "--train.on_nonfinite skip" in str(caught.value)


def test_skip_policy_leaves_weights_and_statistics_as_they_were(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One poisoned batch in the middle: the run goes on and ends finite, one update short."""
    from arcface_plus.models.preprocessing import Preprocessing

    calls = {"n": 0}
    apply = Preprocessing.apply

    def poisoned(self, images):
        calls["n"] += 1
        inputs = apply(self, images)
        return inputs * math.nan if calls["n"] == 3 else inputs

    monkeypatch.setattr(Preprocessing, "apply", poisoned)
    folder = train(tiny, ["--train.on_nonfinite", "skip"])
    model = state(folder)
    assert all(torch.isfinite(value).all() for value in model.values())
    logged = lines(folder)
    assert "loss" not in logged[2] and all("loss" in e for i, e in enumerate(logged) if i != 2)


def test_skip_policy_is_bounded(tiny: Path) -> None:
    with pytest.raises(NonFiniteError, match="nonfinite_limit"):
        train(tiny, ["--optim.lr", "1e30", "--train.on_nonfinite", "skip",
                     "--train.nonfinite_limit", "1"])  # fmt: skip


def test_milestones_show_in_the_log(tiny: Path) -> None:
    folder = train(tiny, ["--schedule.kind", "milestones", "--schedule.milestones", "[2, 4]",
                          "--schedule.warmup_steps", "0"])  # fmt: skip
    rates = [entry["lr"] for entry in lines(folder)]
    assert rates == pytest.approx([0.05, 0.05, 0.005, 0.005, 0.0005, 0.0005])


def test_sampled_classes_train_and_resume(tiny: Path) -> None:
    options = ["--head.sample_rate", "0.3"]
    whole = train(tiny, options)
    cut = whole.parent / "cut"
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "checkpoints" / "step-00000006")
    train(tiny, [*options, "--name", "cut"], resume="auto")
    a, b = state(whole), state(cut)
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_starts_from_given_weights(tiny: Path) -> None:
    first = train(tiny)
    second = train(tiny, ["--name", "second", "--model.init", str(first),
                          "--optim.lr", "1e-12", "--train.freeze_batch_norm", "true"])  # fmt: skip
    a, b = state(first), state(second)
    assert all(torch.allclose(a[key].float(), b[key].float(), atol=1e-6) for key in a)
    with pytest.raises(ValueError, match=r"model\.init"):
        train(tiny, ["--name", "third", "--model.init", str(first), "--model.width", "16"])


# -- the best evaluation -------------------------------------------------------------------------

BEST = ["--train.best", "pairs/accuracy", "--evaluation.every", "1"]


@pytest.fixture
def scored(tiny: Path, tmp_path: Path, monkeypatch):
    """Train ``tiny`` with evaluations that return prescribed scores, by step.

    Returns the run folder and the weights of the net at each evaluation.
    """
    faces = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    save_pairs_bin(tmp_path / "pairs.bin", list(faces), np.array([True, False] * 2))

    def run(scores: dict[int, float], *words: str, **options):
        seen: dict[int, dict[str, torch.Tensor]] = {}
        real = PairEvaluation.__call__

        def call(self, model, step):
            seen[step] = {name: value.clone() for name, value in model.state_dict().items()}
            return real(self, model, step) | {"pairs/accuracy": scores.get(step, 0.0)}

        monkeypatch.setattr(PairEvaluation, "__call__", call)
        sets = ["--evaluation.sets", f"{{pairs: {tmp_path / 'pairs.bin'}}}"]
        sets += ["--evaluation.folds", "2"]
        sets += ["--train.keep_checkpoints", "1"]
        folder = train(tiny, [*BEST, *sets, *words], **options)
        monkeypatch.setattr(PairEvaluation, "__call__", real)
        return folder, seen

    return run


def is_of(folder: Path, weights: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, weights[name]) for name, value in state(folder).items())


def test_the_runs_model_is_that_of_the_best_evaluation(scored, capsys) -> None:
    folder, seen = scored({2: 0.7, 4: 0.9, 6: 0.8})
    assert is_of(folder, seen[4]) and not is_of(folder, seen[6])
    assert "the run's model is that of step 4" in capsys.readouterr().out
    kept = sorted(p.name for p in (folder / "checkpoints").iterdir())
    assert kept == ["step-00000004", "step-00000006"]
    measured = json.loads((folder / "verification.json").read_text())
    assert measured["model"] == {"step": 4, "chosen_by": "pairs/accuracy"}


def test_patience_stops_a_run(scored, capsys) -> None:
    folder, seen = scored({1: 0.5, 2: 0.9}, "--train.patience", "2")
    assert sorted(seen) == [1, 2, 3, 4] and is_of(folder, seen[2])
    assert "stopped: 2 evaluations" in capsys.readouterr().out


def test_an_untrained_net_can_be_the_best(scored) -> None:
    folder, seen = scored({0: 0.9, 3: 0.5}, "--evaluation.at_start", "true")
    assert is_of(folder, seen[0])


def test_the_smallest_equal_error_rate_is_the_best(scored) -> None:
    folder, seen = scored({}, "--train.best", "pairs/eer")
    rates = {e["step"]: e["pairs/eer"] for e in lines(folder, "verification")}
    best = min(rates, key=lambda step: (rates[step], step))
    assert is_of(folder, seen[best])


def test_a_resumed_run_remembers_its_best_evaluation(scored, tmp_path: Path) -> None:
    scores = {1: 0.9, 2: 0.5, 3: 0.6}
    whole, seen = scored(scores, "--name", "whole", "--train.patience", "4")
    folder, _ = scored(scores, "--name", "part", "--train.patience", "4")
    for name in ("model.safetensors", "checkpoints/step-00000005"):
        path = folder / name
        path.unlink() if path.is_file() else shutil.rmtree(path)
    again, later = scored(scores, "--name", "part", "--train.patience", "4", resume="auto")
    assert sorted(seen) == [1, 2, 3, 4, 5] and sorted(later) == [1, 2, 3, 4, 5]
    assert is_of(again, seen[1]) and is_of(whole, seen[1])
