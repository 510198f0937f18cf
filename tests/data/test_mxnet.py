"""Our records against the real mxnet 1.9.1, which lives in an environment of its own.

Its Python is named by ARCFACE_PLUS_MXNET_PYTHON (default: .venv-mxnet/bin/python). Where it is
absent the tests skip, unless ARCFACE_PLUS_REQUIRE_MXNET=1.
"""

from __future__ import annotations

import json
import os
import random
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from arcface_plus.data.records.headers import pack_header
from arcface_plus.data.records.reader import RecordReader, RecordWriter
from arcface_plus.data.records.recordio import MAGIC, MAGIC_BYTES, read_record, scan_offsets

PEER = Path(__file__).with_name("mxnet_peer.py")
MAGIC_AS_FLOAT = struct.unpack("<f", MAGIC_BYTES)[0]


@pytest.fixture(scope="module")
def peer(repository):
    """Return a function that runs a command of mxnet_peer.py."""
    default = repository / ".venv-mxnet" / "bin" / "python"
    python = Path(os.environ.get("ARCFACE_PLUS_MXNET_PYTHON", default))
    if not python.exists():
        message = f"{python.name} of mxnet's environment is absent; `make mxnet` creates it"
        if os.environ.get("ARCFACE_PLUS_REQUIRE_MXNET") == "1":
            pytest.fail(message)
        pytest.skip(message)

    def run(*arguments):
        command = [str(python), str(PEER), *map(str, arguments)]
        # Our own import path must not reach an interpreter with other packages.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr

    return run


def adversarial_records(count=400):
    """Return records whose payloads hold magic words at every alignment, in header and data."""
    rng = random.Random(20260101)
    pieces = [MAGIC_BYTES, MAGIC_BYTES, MAGIC_BYTES[:1], MAGIC_BYTES[:3], MAGIC_BYTES[1:], b""]
    # One word in a float32 label, in the low or high half of an id.
    scalars = [0.0, 7.0, -1.5, 16777217.0, MAGIC_AS_FLOAT]
    ids = [0, 1, MAGIC, MAGIC << 32, 2**64 - 1]
    records = []
    for i in range(count):
        parts = [
            rng.choice([rng.choice(pieces), rng.randbytes(rng.randrange(6))]) for _ in range(8)
        ]
        data = b"".join(parts[: rng.randrange(9)])
        label = rng.choice(scalars)
        if rng.random() < 0.3:
            label = [rng.choice(scalars) for _ in range(rng.randrange(6))]
        records.append(
            {
                "key": i * 7919 % 1009,  # Unique, in no order.
                "label": label,
                "id": rng.choice(ids),
                "id2": rng.choice(ids),
                "data": data.hex(),
            }
        )
    # Large ones, empty ones, nothing but magic words.
    bodies = [rng.randbytes(300_001), b"", MAGIC_BYTES * 50, b"x" + MAGIC_BYTES * 50]
    for i, body in enumerate(bodies):
        records.append({"key": 2000 + i, "label": 1.0, "id": i, "id2": 0, "data": body.hex()})
    return records


def write_ours(records, path):
    with RecordWriter(path, layout="plain", image_size=None) as writer:
        for record in records:
            label = record["label"]
            writer.write(
                bytes.fromhex(record["data"]),
                np.array(label, dtype=np.float32) if isinstance(label, list) else label,
                key=record["key"],
                record_id=record["id"],
                id2=record["id2"],
            )


def expected_payload(record):
    label = np.array(record["label"], dtype=np.float32)
    return pack_header(label, record["id"], record["id2"]) + bytes.fromhex(record["data"])


@pytest.fixture(scope="module")
def both_files(peer, tmp_path_factory):
    """The same adversarial records, written by mxnet and by us."""
    folder = tmp_path_factory.mktemp("mxnet")
    records = adversarial_records()
    (folder / "spec.json").write_text(json.dumps(records))
    peer("write", folder / "spec.json", folder / "theirs")
    write_ours(records, folder / "ours.rec")
    return records, folder


def test_files_are_equal_byte_for_byte(both_files):
    records, folder = both_files
    assert len(records) >= 300
    for suffix in (".rec", ".idx"):
        ours, theirs = (folder / f"{name}{suffix}" for name in ("ours", "theirs"))
        assert ours.read_bytes() == theirs.read_bytes()
    raw = (folder / "theirs.rec").read_bytes()
    multi_part = sum(raw[int(offset) + 7] >> 5 == 1 for offset in scan_offsets(raw))
    assert multi_part >= 100


def test_we_read_what_mxnet_wrote(both_files):
    records, folder = both_files
    with RecordReader(folder / "theirs.rec") as reader:
        assert [record.key for record in reader] == [record["key"] for record in records]
        for position, record in enumerate(records):
            assert reader.read(record["key"]) == expected_payload(record)
            ours = reader[position]
            assert ours.data == bytes.fromhex(record["data"])
            label = record["label"] if record["label"] != [] else 0.0
            np.testing.assert_array_equal(np.float32(ours.label), np.float32(label))
    (folder / "theirs.rec").rename(folder / "unindexed.rec")
    with RecordReader(folder / "unindexed.rec") as reader:
        for position, record in enumerate(records):
            assert reader.read(position) == expected_payload(record)
    (folder / "unindexed.rec").rename(folder / "theirs.rec")


def test_mxnet_reads_what_we_wrote(both_files, peer):
    records, folder = both_files
    peer("read", folder / "ours", folder / "out.json")
    found = json.loads((folder / "out.json").read_text())
    payloads = [expected_payload(record).hex() for record in records]
    assert found["in_sequence"] == payloads
    assert len(found["by_key"]) == len(records)
    for entry, record, payload in zip(found["by_key"], records, payloads, strict=True):
        assert (entry["key"], entry["payload"]) == (record["key"], payload)
        assert (entry["id"], entry["id2"]) == (record["id"], record["id2"])
        assert entry["data"] == record["data"]
        label = record["label"] if record["label"] != [] else 0.0
        assert bytes.fromhex(entry["label"]) == np.float32(label).tobytes()


def test_raw_payloads_without_a_header(peer, tmp_path):
    """Frames carry any bytes, shorter than an image-record header as well."""
    rng = random.Random(1)
    bodies = [
        b"".join(rng.choice([MAGIC_BYTES, rng.randbytes(rng.randrange(5))]) for _ in range(n % 7))
        for n in range(200)
    ]
    spec = [{"key": key, "data": body.hex()} for key, body in enumerate(bodies)]
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    peer("write", tmp_path / "spec.json", tmp_path / "theirs")
    with RecordWriter(tmp_path / "ours.rec", layout="plain") as writer:
        for body in bodies:
            writer.write_raw(body)
    for suffix in (".rec", ".idx"):
        ours, theirs = (tmp_path / f"{name}{suffix}" for name in ("ours", "theirs"))
        assert ours.read_bytes() == theirs.read_bytes()
    raw = (tmp_path / "theirs.rec").read_bytes()
    assert [read_record(raw, int(offset))[0] for offset in scan_offsets(raw)] == bodies


def test_insightface_layout_equals_mxnets(peer, tmp_path):
    """The layout with header-0, packed record by record by mxnet, against RecordWriter's."""
    counts = [3, 1, 4, 2, 5]
    rng = random.Random(2)
    images = [
        (rng.randbytes(50) + MAGIC_BYTES * 2, c) for c, n in enumerate(counts) for _ in range(n)
    ]
    spec, end = [], len(images) + 1
    for key, (body, label) in enumerate(images, start=1):
        spec.append({"key": key, "label": label, "id": key, "id2": 0, "data": body.hex()})
    first = 1
    for key, count in enumerate(counts, start=end):
        pair = [first, first + count]
        spec.append({"key": key, "label": pair, "id": key, "id2": 0, "data": ""})
        first += count
    head = {"key": 0, "label": [end, end + len(counts)], "id": 0, "id2": 0, "data": ""}
    (tmp_path / "spec.json").write_text(json.dumps([head, *spec]))
    peer("write", tmp_path / "spec.json", tmp_path / "theirs")
    with RecordWriter(tmp_path / "ours.rec") as writer:
        for body, label in images:
            writer.write(body, label)
    for suffix in (".rec", ".idx"):
        ours, theirs = (tmp_path / f"{name}{suffix}" for name in ("ours", "theirs"))
        assert ours.read_bytes() == theirs.read_bytes()
    with RecordReader(tmp_path / "theirs.rec") as reader:
        np.testing.assert_array_equal(reader.labels, np.repeat(range(5), counts))
