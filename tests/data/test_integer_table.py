from __future__ import annotations

import numpy as np
import pytest

from arcface_plus.data import integer_table
from arcface_plus.data.integer_table import read_integer_table


def whole(path, columns=3):
    blocks = list(read_integer_table(path, columns))
    return np.concatenate([rows for _, rows in blocks]), [first for first, _ in blocks]


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    return rng.integers(-5, 10**6, (5000, 3))


@pytest.mark.parametrize("end", ["\n", ""])
@pytest.mark.parametrize("between", [" ", "\t", "  ", " \t "])
def test_rows_in_every_spelling(tmp_path, table, between, end):
    path = tmp_path / "t.txt"
    path.write_text("\n".join(between.join(map(str, row)) for row in table.tolist()) + end)
    np.testing.assert_array_equal(whole(path)[0], table)


@pytest.mark.parametrize("newline", ["\n", "\r\n", " \n"])
def test_blocks_cut_anywhere_give_the_same_rows(tmp_path, monkeypatch, table, newline):
    path = tmp_path / "t.txt"
    lines = [" ".join(map(str, row)) + newline for row in table[:200].tolist()]
    path.write_bytes("".join(lines).encode())
    for size in (1, 7, 64, 1000):
        monkeypatch.setattr(integer_table, "_BLOCK_BYTES", size)
        rows, firsts = whole(path)
        np.testing.assert_array_equal(rows, table[:200])
        assert firsts[0] == 1 and all(np.diff(firsts) > 0)


@pytest.mark.parametrize(
    "line",
    ["1 2", "1 2 3 4", "1 2 x", "1 2 1.5", "1 2 1e3", "", "1,2,3", "1 2 --3", "1 2 1_0",
     "1 2 99999999999999999999", f"1 2 {2**62}", "1 2 \x00", "1 2 ٣", "1 2 -"],
)  # fmt: skip
@pytest.mark.parametrize("block", [8, 1 << 20])
def test_malformed_lines_are_named(tmp_path, monkeypatch, line, block):
    monkeypatch.setattr(integer_table, "_BLOCK_BYTES", block)
    path = tmp_path / "t.txt"
    path.write_text(f"1 2 3\n4 5 6\n{line}\n7 8 9\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"t\.txt, line 3: 3 whole numbers"):
        whole(path)


def test_numbers_of_two_lines_do_not_make_up_for_each_other(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("1 2\n3 4 5 6\n")
    with pytest.raises(ValueError, match="line 1"):
        whole(path)


def test_empty_and_missing_and_endless(tmp_path):
    (tmp_path / "empty").write_text("")
    assert list(read_integer_table(tmp_path / "empty", 3)) == []
    with pytest.raises(FileNotFoundError, match="none"):
        list(read_integer_table(tmp_path / "none", 3))
    (tmp_path / "long").write_bytes(b"1" * (integer_table._BLOCK_BYTES + 10))
    with pytest.raises(ValueError, match="line 1 is longer"):
        list(read_integer_table(tmp_path / "long", 3))
