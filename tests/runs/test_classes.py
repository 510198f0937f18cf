from __future__ import annotations

from pathlib import Path

import pytest

from arcface_plus.data.folder import ImageFolder
from arcface_plus.data.images import encode_jpeg
from arcface_plus.data.records.images import RecordImages
from arcface_plus.data.records.packing import pack_folder
from arcface_plus.data.records.reader import RecordReader
from arcface_plus.data.sources.synthetic import SyntheticFaces
from arcface_plus.runs.classes import CLASSES, names_of_data, names_of_head, write_classes

PEOPLE = ["7261", "Ana Silva", "bo"]


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    drawn = SyntheticFaces(3, 2, size=16, seed=0)
    for index in range(len(drawn)):
        image, label = drawn.read(index)
        folder = tmp_path / "faces" / PEOPLE[label]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{index}.jpg").write_bytes(encode_jpeg(image, 95))
    return tmp_path / "faces"


def test_names_are_written_and_read_back(faces, tmp_path) -> None:
    source = ImageFolder(faces)
    assert names_of_data(source, None) == PEOPLE
    write_classes(source, tmp_path)
    assert names_of_head(tmp_path, None, 3) == PEOPLE
    (tmp_path / "none").mkdir()
    write_classes(SyntheticFaces(3, 2, size=16, seed=0), tmp_path / "none")
    assert not (tmp_path / "none" / CLASSES).exists()
    assert names_of_data(source, "labels") == ["0", "1", "2"]


def test_records_have_the_names_of_the_list_beside_them(faces, tmp_path) -> None:
    packed = pack_folder(faces, tmp_path / "packed", size=16)
    records = RecordImages(RecordReader(packed.path))
    assert names_of_data(records, None) == PEOPLE
    listing = packed.path.with_suffix(".lst")
    lines = listing.read_text().splitlines()
    for damaged in (
        lines[:-2],  # a label without a name
        [*lines, "9\t0\tbo/x.jpg"],  # a label with two
        [line.replace("bo/", "7261/") for line in lines],  # a name with two labels
        [line.replace("\t", " ") for line in lines],
        [f"{k}\tx{k}.jpg\t0" for k in range(6)],
    ):
        listing.write_text("\n".join(damaged) + "\n")
        assert records.names() is None
    listing.unlink()
    with pytest.raises(ValueError, match=r"\.lst.*--head\.from_names labels"):
        names_of_data(records, None)


def test_names_must_be_there_and_fit(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"does not say .* --head\.from_names FILE"):
        names_of_head(tmp_path, None, 3)
    file = tmp_path / "names.txt"
    with pytest.raises(FileNotFoundError):
        names_of_head(tmp_path, str(file), 3)
    file.write_text("a\nb\nc\n")
    assert names_of_head(tmp_path, str(file), 3) == ["a", "b", "c"]
    with pytest.raises(ValueError, match=r"names\.txt has 3 names, but the head has 4 classes"):
        names_of_head(tmp_path, str(file), 4)
    file.write_text("a\nb\na")
    with pytest.raises(ValueError, match="'a' more than once"):
        names_of_head(tmp_path, str(file), 3)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="no text file"):
        names_of_head(tmp_path, str(file), 3)
    assert names_of_head(tmp_path, "labels", 2) == ["0", "1"]
