from __future__ import annotations

import numpy as np

from arcface_plus.data.images import encode_jpeg
from arcface_plus.data.records.reader import (
    RecordReader,
    RecordWriter,
)


def test_subset(cli, tmp_path) -> None:
    rng = np.random.default_rng(0)
    with RecordWriter(tmp_path / "all" / "train.rec", image_size=(32, 32)) as writer:
        for label in range(9):
            for _ in range(1 + label % 3):
                pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                writer.write(encode_jpeg(pixels), label)
    words = ["data", "subset", tmp_path / "all", tmp_path / "small.rec", "--identities", 4]
    done = cli(*words, "--min-images", 2, "--seed", 3)
    assert done.exit_code == 0, done.output
    reader = RecordReader(tmp_path / "small.rec")
    assert f"{len(reader)} images of 4 people" in done.stdout
    assert "small.classes.csv" in done.stdout
    assert reader.num_classes == 4 and np.bincount(reader.labels).min() >= 2
    assert cli("data", "check", tmp_path / "small.rec", "--num-classes", 4).exit_code == 0
    again = cli(*words)
    assert again.exit_code == 2 and "exists" in again.stderr
    few = cli(
        "data", "subset", tmp_path / "all", tmp_path / "b.rec", "--identities", 4, "--min-images", 3
    )
    assert few.exit_code == 2 and "only 3 of 9" in few.stderr
    assert not (tmp_path / "b.rec").exists()
