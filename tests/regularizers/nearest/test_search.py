"""Nearest neighbours against brute force in float64."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from arcface_plus.regularizers.geometry.sphere import UnitRows
from arcface_plus.regularizers.nearest import ranking as nearest_rank
from arcface_plus.regularizers.nearest import tables as nearest_tables
from arcface_plus.regularizers.nearest.ranking import nearest_at_once, nearest_from_table
from arcface_plus.regularizers.nearest.search import (
    nearest_neighbors,
    search_between,
    search_few,
    search_self,
)
from arcface_plus.regularizers.nearest.tables import Search, group_maxima

TIE = 6e-8  # rows nearer to each other than this may be ranked by index


def make(kind: str, n: int, d: int, seed: int = 0) -> Tensor:
    """Return n unit rows in float32 that are hard in the way their name says."""
    g = torch.Generator().manual_seed(seed)
    random = torch.randn(n, d, generator=g)
    noise = torch.randn(n, d, generator=g)
    half, dozen = random[: -(-n // 2)], random[: -(-n // 12)]
    rows = {
        "random": random,
        "pairs": half.repeat(2, 1)[:n] + 1e-2 * noise,
        "tight": half.repeat(2, 1)[:n] + 1e-5 * noise,
        "duplicates": half.repeat(2, 1)[:n],
        "clusters": dozen.repeat(12, 1)[:n] + 0.3 * noise,
        "cone": random + 5 * torch.randn(d, generator=g),
        "collapsed": random[:1] + 1e-6 * noise,
        "identical": random[:1].repeat(n, 1),
        "one_sided": random.abs(),
        "sparse": random * (torch.rand(n, d, generator=g) < 2 / d).float() + 1e-3 * noise,
    }[kind]
    return F.normalize(rows.double(), dim=1).float()


KINDS = ("random", "pairs", "tight", "duplicates", "clusters", "cone", "collapsed", "identical",
         "one_sided", "sparse")  # fmt: skip


def among(rows: Tensor) -> Search:
    """Return the search for every row's nearest other row."""
    unit = UnitRows(rows)
    return Search(unit, unit, torch.arange(len(rows)))


def chords(a: Tensor, b: Tensor) -> Tensor:
    return torch.cdist(a.double(), b.double(), compute_mode="donot_use_mm_for_euclid_dist")


def assert_nearest(index: Tensor, distance: Tensor) -> None:
    """Check that ``index`` is nearest in every row, and the first where the distances are equal."""
    nearest, first = distance.min(1)
    excess = distance.gather(1, index[:, None])[:, 0] - nearest
    assert excess.max() < TIE
    clear = (distance < nearest[:, None] + TIE).sum(1) == 1
    assert torch.equal(index[clear], first[clear])
    same = distance.gather(1, index[:, None]) == distance
    assert torch.equal(index, same.int().argmax(1)), "a tie must go to the lowest index"


@pytest.mark.parametrize("precision", ["fp32", "bf16", "auto"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "d"), [(2, 3), (65, 2), (700, 8), (1333, 48)])
def test_equals_brute_force(kind: str, n: int, d: int, precision: str) -> None:
    rows = make(kind, n, d)
    cosine, index = nearest_neighbors(rows, precision=precision)
    distance = chords(rows, rows).fill_diagonal_(math.inf)
    assert_nearest(index, distance)
    expected = F.cosine_similarity(rows.double(), rows[index].double())
    torch.testing.assert_close(cosine.double(), expected, rtol=0, atol=1e-7)
    assert cosine.dtype == torch.float32 and index.dtype == torch.int64


@pytest.mark.parametrize("kind", KINDS)
def test_half_tables_give_the_neighbours_of_the_fp32_table(kind: str) -> None:
    """Without the probe that would choose fp32, so that crowded queries take their own way out."""
    search, found = among(make(kind, 3000, 64)), []
    for half in (None, torch.bfloat16, torch.float16):
        table, _ = group_maxima(search, half=half, both=True)
        found.append(nearest_from_table(table, search))
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@pytest.mark.parametrize("most_ties", [0, 48])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("n", "d", "dtype"),
    [
        (2, 5, torch.float32),
        (67, 3, torch.float32),
        (512, 40, torch.float64),
        (400, 600, torch.float32),
    ],
)
def test_one_product_gives_the_neighbours_of_the_tables(
    kind: str, n: int, d: int, dtype: torch.dtype, most_ties: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few rows take one product; listed and crowded near-ties are settled as the tables do."""
    monkeypatch.setattr(nearest_rank, "_MOST_TIES", most_ties)
    search = among(make(kind, n, d).to(dtype))
    table, _ = group_maxima(search, half=None, both=True)
    assert torch.equal(nearest_at_once(search), nearest_from_table(table, search))


@pytest.mark.parametrize(("half", "unit"), [(torch.bfloat16, 2.0**-8), (torch.float16, 2.0**-11)])
@pytest.mark.parametrize("kind", ["random", "clusters", "cone", "sparse"])
def test_error_of_half_precision_stays_within_its_bound(
    kind: str, half: torch.dtype, unit: float
) -> None:
    rows = make(kind, 600, 96)
    table, _ = group_maxima(among(rows), half=half, both=True)
    exact = (rows.double() @ rows.double().t()).fill_diagonal_(-1)
    padded = F.pad(exact, (0, -600 % table.group), value=-1).unflatten(1, (-1, table.group)).amax(2)
    value = table.values.view(half).double().t()
    slack = table.slack.double()[:, None]
    bound = slack + unit * (padded.abs() + slack)
    share = (padded.clamp_min(0) - value).abs() / bound
    assert share.max() <= 1
    assert share.max() > 0.1, "a bound this loose would leave everything open"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 300), (300, 1), (130, 777), (600, 600)])
def test_between_both_ways(n: int, m: int, precision: str) -> None:
    both = make("clusters", n + m, 24)
    a, b = both[:n], both[n:]
    of_a, of_b = search_between(UnitRows(a), UnitRows(b), precision=precision)
    distance = chords(a, b)
    assert_nearest(of_a, distance)
    assert_nearest(of_b, distance.t())


def test_between_an_empty_set() -> None:
    a, empty = make("random", 5, 4), torch.empty(0, 4)
    of_a, of_empty = search_between(UnitRows(a), UnitRows(empty))
    assert of_a.tolist() == [-1] * 5 and len(of_empty) == 0


def test_a_row_alone_has_no_neighbour() -> None:
    one = make("random", 1, 4)
    own = torch.tensor([-1, 0])
    assert search_few(one.repeat(2, 1), UnitRows(one), own).tolist() == [0, -1]
    assert search_self(UnitRows(one)).tolist() == [-1]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("group_bytes", [1, 16 << 20])
def test_few_queries_among_rows_made_block_by_block(
    precision: str, group_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearest_tables, "_TABLE_BYTES", group_bytes)  # 1: groups above a block
    weight = 3 * make("clusters", 2500, 16)
    norms = weight.norm(dim=1)
    unit = weight / norms[:, None]
    lazy, whole = UnitRows(weight, norms), UnitRows(unit)
    own = torch.tensor([0, 17, 2499, 1024])
    index = search_few(lazy.take(own), lazy, own, precision=precision)
    distance = chords(unit[own], unit)
    distance[torch.arange(4), own] = math.inf
    assert_nearest(index, distance)
    assert torch.equal(lazy.block(5, 9), whole.block(5, 9))


@pytest.mark.parametrize("half", [None, torch.bfloat16])
def test_any_group_and_block_size(
    half: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = make("clusters", 1500, 20)
    expected = nearest_neighbors(rows, precision="fp32").index
    search = among(rows)
    for budget in (1 - 1500 * 20, 40_000 - 1500 * 20, 1 << 30):
        monkeypatch.setattr(nearest_tables, "_TABLE_BYTES", budget + 1500 * 20)
        monkeypatch.setattr(nearest_rank, "_QUERIES_AT_ONCE", 400)
        table, _ = group_maxima(search, half=half, both=True)
        assert torch.equal(nearest_from_table(table, search), expected)


def test_close_rows_are_told_apart() -> None:
    """Below 4e-4 rad the cosines of float32 rows are all one; their differences are not."""
    angles = torch.tensor([0.0, 3e-4, 5e-4, 6e-4, 6.5e-4], dtype=torch.float64)
    rows = torch.stack([angles.cos(), angles.sin()], 1).float()
    assert nearest_neighbors(rows).index.tolist() == [1, 2, 3, 4, 3]


def test_ties_go_to_the_lowest_index() -> None:
    rows = torch.eye(5)
    assert nearest_neighbors(rows).index.tolist() == [1, 0, 0, 0, 0]
    rows = torch.eye(3)[[2, 0, 1, 0, 2, 0]]
    assert nearest_neighbors(rows).index.tolist() == [4, 3, 0, 1, 0, 1]


def test_float64_is_searched_in_float64() -> None:
    angles = torch.tensor([0.0, 1.0, 2.0 - 1e-12, 3.0 - 1e-12], dtype=torch.float64)
    rows = torch.stack([angles.cos(), angles.sin()], 1)
    cosine, index = nearest_neighbors(rows)
    assert index.tolist() == [1, 2, 1, 2] and cosine.dtype == torch.float64
    assert abs(cosine[2] - math.cos(1 - 1e-12)) < 1e-15


def test_half_precision_and_other_layouts() -> None:
    rows = make("random", 200, 12)
    expected = nearest_neighbors(rows)
    strided = torch.empty(12, 400).t()[::2].copy_(rows)
    assert not strided.is_contiguous()
    assert torch.equal(nearest_neighbors(strided).index, expected.index)
    assert torch.equal(nearest_neighbors(rows.view(200, 3, 2, 2)).index, expected.index)
    half = rows.bfloat16()
    again = nearest_neighbors(F.normalize(half.float(), dim=1))
    assert torch.equal(nearest_neighbors(half).index, again.index)


def test_no_graph_and_no_autocast() -> None:
    rows = make("pairs", 300, 32).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        cosine, index = nearest_neighbors(rows)
    assert not cosine.requires_grad and cosine.dtype == torch.float32
    assert torch.equal(index, nearest_neighbors(rows).index)


def test_bad_rows_are_named() -> None:
    rows = make("random", 10, 4)
    for value, row in ((0.0, 3), (math.nan, 7), (math.inf, 2), (2.0, 9)):
        bad = rows.clone()
        bad[row] = bad[row] * value if value == 2.0 else value
        with pytest.raises(ValueError, match=f"row {row} of unit_rows has norm"):
            nearest_neighbors(bad)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="at least two"):
        nearest_neighbors(torch.ones(1, 1))
    with pytest.raises(ValueError, match="at least two"):
        nearest_neighbors(torch.empty(0, 4))
    with pytest.raises(ValueError, match="floating-point rows"):
        nearest_neighbors(torch.ones(4))
    with pytest.raises(ValueError, match="floating-point rows"):
        nearest_neighbors(torch.ones(4, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match="fp8"):
        nearest_neighbors(torch.eye(3), precision="fp8")  # type: ignore[arg-type]


KERNEL = """
import torch
from arcface_plus.regularizers.geometry.sphere import UnitRows
from arcface_plus.regularizers.nearest import kernel
from arcface_plus.regularizers.nearest.tables import Search, group_maxima
from test_search import among, chords, make
kernel._COLUMNS_AT_ONCE, kernel._GROUPS = 128, 2
def check(table, search, distance):
    index = kernel.nearest_by_kernel(table, search)
    nearest = distance.min(1).values
    excess = distance.gather(1, index[:, None])[:, 0] - nearest
    assert excess.max() < 1e-6, (kind, half)
for half in (torch.float16, None):
    for kind, n, m, d in (("random", 2, 3, 3), ("clusters", 90, 300, 40), ("tight", 130, 65, 33),
                          ("duplicates", 80, 70, 5), ("cone", 70, 66, 16)):
        both = make(kind, n + m, d)
        a, b = UnitRows(both[:n]), UnitRows(both[n:])
        search = among(both)
        own = chords(both, both).fill_diagonal_(9)
        check(group_maxima(search, half=half, both=True)[0], search, own)
        search = Search(a, b, None)
        table, reverse = group_maxima(search, half=half, both=True)
        check(table, search, chords(both[:n], both[n:]))
        check(reverse, Search(b, a, None), chords(both[n:], both[:n]))
        some = torch.tensor([m - 1, 0])
        lazy = UnitRows(2 * both[n:], torch.full((m,), 2.0))
        search = Search(UnitRows(lazy.take(some)), lazy, some)
        distance = chords(both[n:][some], both[n:])
        distance[torch.arange(2), some] = 9
        check(group_maxima(search, half=half)[0], search, distance)
# Groups that the table has closed are not multiplied: what is put there later is not found.
axis = torch.eye(64)[:1].repeat(64, 1)
kind, half = "far", torch.float16
queries = torch.nn.functional.normalize(axis + 0.05 * make("random", 64, 64))
columns = torch.cat([queries.roll(1, 0), -queries])
search = Search(UnitRows(queries), UnitRows(columns), None)
table, _ = group_maxima(search, half=half)
distance = chords(queries, columns)
columns[64:] = queries
changed = Search(UnitRows(queries), UnitRows(columns), None)
assert (kernel.nearest_by_kernel(table, changed) < 64).all()
check(table, search._replace(columns=UnitRows(torch.cat([queries.roll(1, 0), -queries]))), distance)
one = UnitRows(torch.eye(2)[:1])
alone = Search(one, UnitRows(torch.eye(2)[:1]), torch.tensor([0]))
assert kernel.nearest_by_kernel(group_maxima(alone, half=None)[0], alone).tolist() == [-1]
print("searched")
"""


@pytest.mark.slow
def test_gpu_kernel_under_the_interpreter(repository) -> None:  # type: ignore[no-untyped-def]
    """All of the GPU search but its launch on a GPU; interpreted, as this machine may have none."""
    pytest.importorskip("triton", reason="Triton is not installed")
    paths = [str(repository), str(repository / "tests" / "regularizers" / "nearest")]
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [sys.executable, "-c", KERNEL], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0 and "searched" in done.stdout, done.stderr
