"""TinyImageNet's folders: training and validation images of the same classes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from torchvision.datasets import ImageFolder as TorchvisionFolder

from arcface_plus.data.settings import DataConfig
from arcface_plus.data.sources.image_source import fit_square, open_source, open_test_source
from arcface_plus.data.sources.tiny_imagenet import open_tiny_imagenet

CLASSES = ["n02124075", "n01443537", "n04067472"]  # in the order of wnids.txt, not sorted


def save(path: Path, level: int, *, grey: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.full((64, 64) if grey else (64, 64, 3), level, dtype=np.uint8)
    assert cv2.imwrite(str(path.with_suffix(".jpg")), image)
    path.with_suffix(".jpg").rename(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three classes in the real layout: four training and two validation images of each."""
    folder = tmp_path / "data" / "tiny-imagenet-200"
    lines = []
    for number, name in enumerate(CLASSES):
        for i in range(4):
            path = folder / "train" / name / "images" / f"{name}_{i}.JPEG"
            save(path, 40 * number + 5 * i, grey=i == 3)  # some of the real ones are grey
        boxes = folder / "train" / name / f"{name}_boxes.txt"
        boxes.write_text(f"{name}_0.JPEG\t0\t10\t63\t58\n")
    for i in range(6):
        save(folder / "val" / "images" / f"val_{i}.JPEG", 130 + 10 * i)
        lines.append(f"val_{i}.JPEG\t{CLASSES[i % 3]}\t0\t32\t44\t62\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    save(folder / "test" / "images" / "test_0.JPEG", 0)
    (folder / "wnids.txt").write_text("\n".join(CLASSES) + "\n")
    (folder / "words.txt").write_text("n01443537\tgoldfish, Carassius auratus\n")
    return folder


def test_training_images_are_those_of_torchvision(root):
    source = open_tiny_imagenet(root, train=True)
    theirs = TorchvisionFolder(str(root / "train"))
    assert source.class_names == theirs.classes == sorted(CLASSES)
    assert source.num_classes == 3 and len(source) == 12
    assert source.labels.tolist() == theirs.targets
    assert [source.describe(i) for i in range(12)] == [path for path, _ in theirs.samples]
    for index in range(12):
        image, label = source.read(index)
        expected, expected_label = theirs[index]
        assert image.shape == (64, 64, 3) and label == expected_label
        assert np.abs(image.astype(int) - np.asarray(expected)).max() <= 2


def test_validation_images_have_their_annotated_classes(root):
    source = open_tiny_imagenet(root, train=False)
    assert source.class_names == sorted(CLASSES) and len(source) == 6
    for index in range(6):
        image, label = source.read(index)
        number = int(Path(source.describe(index)).stem.split("_")[1])
        assert abs(int(image[0, 0, 0]) - (130 + 10 * number)) <= 2
        assert source.class_names[label] == CLASSES[number % 3]
    seen = {open_tiny_imagenet(root, train=True).describe(i) for i in range(12)}
    assert not seen & {source.describe(i) for i in range(6)}


def test_folder_or_the_one_that_holds_it(root):
    for path in (root, root.parent, str(root)):
        assert len(open_tiny_imagenet(path, train=True)) == 12


def test_a_run_opens_them_by_name(root):
    settings = DataConfig(source="tiny_imagenet", path=root, size=64)
    train, test = open_source(settings), open_test_source(settings)
    assert (len(train), len(test)) == (12, 6) and train.num_classes == test.num_classes == 3
    assert fit_square(test.read(0)[0], 64, where="").shape == (64, 64, 3)


def test_wnids_may_lack(root):
    (root / "wnids.txt").unlink()
    assert open_tiny_imagenet(root, train=False).num_classes == 3


def test_absent_data_say_where_to_get_them(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError) as caught:
            open_tiny_imagenet(path, train=True)
        message = str(caught.value)
        assert f"data.path {path}" in message and "tiny-imagenet-200.zip" in message


@pytest.mark.parametrize("train", [True, False])
def test_classes_that_differ_from_the_list_are_named(root, train):
    (root / "train" / "n99999999" / "images").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"wnids.txt and .* differ in 1 classes .*n99999999"):
        open_tiny_imagenet(root, train=train)


def test_a_class_without_images_is_named(root):
    folder = root / "train" / CLASSES[0] / "images"
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=rf"{CLASSES[0]}.images holds no image"):
        open_tiny_imagenet(root, train=True)
    folder.rmdir()
    with pytest.raises(ValueError, match=rf"{CLASSES[0]}.images holds no image"):
        open_tiny_imagenet(root, train=True)


def test_too_few_classes(root):
    (root / "wnids.txt").unlink()
    for name in CLASSES[1:]:
        (root / "train" / name).rename(root / name)
    with pytest.raises(ValueError, match="holds 1 class folders"):
        open_tiny_imagenet(root, train=True)


def test_validation_images_sorted_into_folders_are_refused(root):
    (root / "val" / "val_annotations.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"val_annotations\.txt"):
        open_tiny_imagenet(root, train=False)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda lines: lines[:-1], r"differ in 1 images \(first: val_5\.JPEG\)"),
        (lambda lines: [*lines, "val_6.JPEG\tn01443537\n"], r"differ in 1 images .*val_6"),
        (lambda lines: [*lines, "../../x.JPEG\tn01443537\n"], r"differ in 1 images .*x\.JPEG"),
        (lambda lines: [*lines, lines[0]], r"annotations\.txt:7: val_0\.JPEG is listed twice"),
        (lambda lines: ["val_0.JPEG n01443537\n", *lines[1:]], r"annotations\.txt:1: expected"),
        (lambda lines: ["val_0.JPEG\tn0\t0\n", *lines[1:]], r"txt:1: expected .*got 'val_0"),
        (lambda lines: ["\n", *lines], r"annotations\.txt:1: expected"),
        (
            lambda lines: [line.replace(CLASSES[0], CLASSES[1]) for line in lines],
            rf"no image of 1 classes \(first: {CLASSES[0]}\)",
        ),
    ],
)
def test_annotations_that_do_not_fit_are_named(root, change, match):
    path = root / "val" / "val_annotations.txt"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(change(lines)))
    with pytest.raises(ValueError, match=match) as caught:
        open_tiny_imagenet(root, train=False)
    assert str(caught.value).startswith(str(path))
    assert len(open_tiny_imagenet(root, train=True)) == 12


def test_a_cut_image_is_named_when_it_is_read(root):
    path = root / "val" / "images" / "val_2.JPEG"
    path.write_bytes(path.read_bytes()[:200])
    source = open_tiny_imagenet(root, train=False)
    index = [source.describe(i) for i in range(6)].index(str(path))
    with pytest.raises(ValueError, match=r"val_2\.JPEG"):
        source.read(index)
