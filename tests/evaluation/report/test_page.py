from __future__ import annotations

import html
import itertools
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arcface_plus.data.pairs.sets import PairSet
from arcface_plus.evaluation.pairs.verification import verify_distances
from arcface_plus.evaluation.report.page import write_report
from arcface_plus.evaluation.report.section import MainNumbers, ReportSection
from arcface_plus.evaluation.report.words import span

HOSTILE = "<script>alert('x')</script>\"onload=\"a()&amp;{{ 7*7 }}\u202egpj\x00\ud800"
VOID = {"meta", "link", "img", "wbr", "br"}


class Images:
    """Small photographs under names of one's choosing."""

    def __init__(self, count: int, name: str = "face_{}.jpg", broken: int | None = None) -> None:
        self.count, self.name, self.broken = count, name, broken
        self.decoded = 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> np.ndarray:
        if index == self.broken:
            raise ValueError("corrupt")
        self.decoded += 1
        return np.full((300, 200, 3), index % 256, dtype=np.uint8)

    def describe(self, index: int) -> str:
        return f"/home/someone/faces/{self.name.format(index)}"

    def identity(self, index: int) -> bytes:
        return str(index).encode()


def section(name: str = "toy", images: Images | None = None, **more: Any) -> ReportSection:
    """400 pairs in 4 folds with some errors of both kinds."""
    rng = np.random.default_rng(0)
    is_same = np.tile(np.repeat([True, False], 50), 4)
    distances = np.where(is_same, rng.normal(1.1, 0.3, 400), rng.normal(1.8, 0.3, 400)).clip(0, 4)
    pairs = None
    if images is not None:
        people = more.pop("names", None) or [f"p{i % 50}" for i in range(len(images))]
        pairs = PairSet(images, is_same, names=people)
    result = verify_distances(distances, is_same, 4)
    return ReportSection(name, pairs, distances, is_same, result, **more)


def write(path: Path, *sections: ReportSection, **more: Any) -> str:
    arguments = {"title": "A title", "environment": {"torch": "2"}, "command": "verify", **more}
    write_report(path / "report.html", sections, **arguments)
    return (path / "report.html").read_text(encoding="utf-8")


class Structure(HTMLParser):
    """Notes the elements, attributes and text of a page, and whether elements close in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_numbers_are_those_of_the_result(tmp_path: Path) -> None:
    toy = section(images=Images(800))
    page = write(tmp_path, toy)
    result = toy.result
    claims = toy.intervals
    ends = (*claims.accuracy, *claims.pairs_claim, *result.confidence_interval)
    for rate in (result.accuracy, result.eer, *ends):
        assert f"{100 * rate:.2f}" in page
    assert f"{result.auc:.5f}" in page
    assert f"{100 * result.tar_at_far[0.01]:.2f}\u202f†" in page, "200 impostor pairs: coarse"
    assert "needed: 1\u202f000 for FAR 0.1\u00a0%" in page, "and below that refused"
    assert "jackknife over 50 people" in page
    assert f"95 % interval {span(claims.accuracy)}" in page, "the large figure's own"
    for k, accuracy in enumerate(result.fold_accuracies, 1):
        assert f"fold {k}: {100 * accuracy:.2f} %" in page


def test_baselines_and_history_stand_beside_the_model(tmp_path: Path) -> None:
    floor = section().result
    toy = section(baselines={"raw pixels": floor}, history=[(0, 0.5), (10, 0.75)])
    page = Structure(write(tmp_path, toy))
    heads = [words for words in page.words if words in ("raw pixels", "this model")]
    assert heads[:2] == ["raw pixels", "this model"], "the table's order"
    assert len([a for a in page.all("svg") if a.get("role") == "img"]) == 5
    assert "step 10: 75.00 %" in page.words


def test_baseline_from_a_log_has_its_main_numbers_alone(tmp_path: Path) -> None:
    logged = MainNumbers(accuracy=0.7125, accuracy_std=0.031, auc=0.77777, eer=0.2)
    text = write(tmp_path, section(baselines={"untrained": logged}, history=[(0, 0.7125)]))
    rows = dict(re.findall(r'<tr><th scope="row">(.*?)</th><td>(.*?)</td><td class="model">', text))
    assert rows["Accuracy ± std over folds"] == "71.25 ± 3.10"
    assert rows["Area under ROC (AUC)"] == "0.77777"
    absent = ("95 % interval", "… as t over folds claims", "TAR at FAR 10\u00a0%")
    assert [rows[label] for label in absent] == ["–"] * 3


def test_embeddings_alone_make_a_report(tmp_path: Path) -> None:
    page = write(tmp_path, section())
    assert "embeddings alone" in page
    assert "<img" not in page
    assert "jackknife over 400 pairs" in page
    assert "they are too narrow where pairs share people" in page


def test_several_sets_get_an_overview_with_links(tmp_path: Path) -> None:
    page = Structure(write(tmp_path, section("one"), section("two")))
    targets = {a.get("id") for _, a in page.elements}
    links = [a["href"] for a in page.all("a")]
    assert {"#set-1", "#set-2", "#results"} <= set(links)
    assert all(link is not None and link[1:] in targets for link in links)
    identifiers = [a["id"] for _, a in page.elements if "id" in a]
    assert len(identifiers) == len(set(identifiers))
    labels = [a["aria-labelledby"] for _, a in page.elements if "aria-labelledby" in a]
    assert set(labels) <= targets


def test_page_is_complete_in_itself(tmp_path: Path) -> None:
    text = write(tmp_path, section(images=Images(800)))
    page = Structure(text)
    without_photographs = re.sub(r"base64,[\w+/=]+", "", text)
    assert not re.search(r"https?:|//[a-z]|url\(|@import", without_photographs, re.IGNORECASE)
    assert page.all("script") == []
    assert all(
        (a["href"] or "").startswith(("#", "data:")) for a in page.all("a") + page.all("link")
    )
    assert all((a["src"] or "").startswith("data:image/jpeg;base64,") for a in page.all("img"))
    policy = [a["content"] for a in page.all("meta") if "http-equiv" in a]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_page_serves_phones_keyboards_readers_print_and_both_themes(tmp_path: Path) -> None:
    text = write(tmp_path, section(images=Images(800)))
    page = Structure(text)
    assert page.all("html")[0]["lang"] == "en"
    assert any(a.get("name") == "viewport" for a in page.all("meta"))
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    charts = [a for a in page.all("figure") if a.get("class") == "chart"]
    drawings = [a for a in page.all("svg") if a.get("role") == "img"]
    assert len(charts) == len(drawings) == len(page.all("figcaption")) - len(page.all("img")) // 2
    assert all(a["aria-label"] for a in drawings)
    assert len(page.all("details")) == len(charts) + 1
    assert all("distance" in (a["alt"] or "") for a in page.all("img"))
    colours = re.findall(r"(?:fill|stroke): ?(#\w+)", text)
    assert colours == [], "charts take their colours from variables, which follow the theme"


def test_distances_are_told_as_cosines_too(tmp_path: Path) -> None:
    toy = section()
    cosine = 1 - toy.distances / 2
    genuine, impostor = cosine[toy.is_same], cosine[~toy.is_same]
    text = write(tmp_path, toy)
    assert f"the impostors' standard deviation is {impostor.std():.3f};" in html.unescape(text)
    below = f"1 % of the genuine ones lie below {np.sort(genuine)[2]:.3f} (coarse: fewer than ten"
    assert below in text
    assert "1\u202f000 are needed to say what 0.1 % of them lie above" in text
    many = np.concatenate([toy.distances] * 50)
    is_same = np.tile(toy.is_same, 50)
    larger = ReportSection("more", None, many, is_same, verify_distances(many, is_same, 4))
    tail = np.sort(impostor)[-1]  # its 50 copies hold the eleventh largest of 10 000
    assert f"0.1 % of them lie above {tail:.3f};" in write(tmp_path, larger)


def test_drawings_are_well_formed(tmp_path: Path) -> None:
    drawings = re.findall(r"<svg.*?</svg>", write(tmp_path, section()), re.DOTALL)
    assert len(drawings) == 4
    for drawing in drawings:
        numbers = re.findall(r'(?:x|y|x1|y1|x2|y2|points|cx|cy)="([^"]*)"', drawing)
        assert numbers
        assert not any("nan" in number or "inf" in number for number in numbers)
        ET.fromstring(drawing)


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    images = Images(800, name=HOSTILE.replace("{{ 7*7 }}", "{{{{ 7*7 }}}}").replace("/", "∕"))
    toy = section(HOSTILE, images, names=[HOSTILE] * 800, baselines={HOSTILE: section().result})
    text = write(
        tmp_path,
        toy,
        title=HOSTILE,
        environment={HOSTILE: {HOSTILE: HOSTILE, "list": [HOSTILE], "none": None}},
        command=HOSTILE,
    )
    page = Structure(text)
    assert page.all("script") == []
    assert not any(name.startswith("on") for _, a in page.elements for name in a)
    assert "&amp;amp;{{ 7*7 }}" in text
    assert not re.search("[\u202e\x00]", text)
    shown = html.escape("<script>alert('x')</script>").replace("&#x27;", "&#39;")
    assert text.count(shown) >= 5


def test_folders_do_not_show_and_long_names_are_cut(tmp_path: Path) -> None:
    text = write(tmp_path, section(images=Images(800, name="x" * 500 + "{}.jpg")))
    assert "someone" not in text
    assert "x" * 119 + "…" in text
    assert "x" * 121 not in text


def test_photographs_are_few_and_small(tmp_path: Path) -> None:
    images = Images(800)
    text = write(tmp_path, section(images=images))
    assert images.decoded == len(Structure(text).all("img")) == 2 * 2 * 8
    assert len(text) < 300_000


def test_worst_errors_come_first(tmp_path: Path) -> None:
    toy = section(images=Images(800))
    text = write(tmp_path, toy)
    limits = np.repeat(toy.result.thresholds, 100)
    beyond = np.where(toy.is_same, toy.distances - limits, limits - toy.distances)
    for heading, of in (("False accepts", ~toy.is_same), ("False rejects", toy.is_same)):
        block = text.split(f"<h3>{heading}")[1].split("<h3>")[0]
        worst = np.flatnonzero(of)[np.argsort(-beyond[of])][:8]
        assert re.findall(r"pair (\d+),", block) == [str(row + 1) for row in worst]
        wrong = int((beyond[of] > 0).sum())
        assert f"The worst 8 of {wrong}" in block


def test_unreadable_photograph_is_named_in_its_place(tmp_path: Path) -> None:
    toy = section(images=Images(800))
    limits = np.repeat(toy.result.thresholds, 100)
    worst = int(np.argmax(np.where(toy.is_same, toy.distances - limits, -9)))
    text = write(tmp_path, section(images=Images(800, broken=2 * worst)))
    assert text.count('<span class="missing">not readable') == 1


def test_perfect_and_tiny_sets_can_be_shown(tmp_path: Path) -> None:
    is_same = np.array([True, False, True, False])
    distances = np.where(is_same, 0.0, 4.0)
    result = verify_distances(distances, is_same, 2)
    text = write(tmp_path, ReportSection("tiny", None, distances, is_same, result))
    assert "None: every genuine pair was decided rightly." in text
    assert "nan" not in text.split("</style>")[1]


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    toy = section(images=Images(800))
    with pytest.raises(ValueError, match="sections of different names"):
        write(tmp_path, toy, toy)
    with pytest.raises(ValueError, match="sections of different names"):
        write(tmp_path)
    wrong = {
        "0 to 4, but range": {"distances": toy.distances * 100},
        r"must be \(N,\) both": {"distances": toy.distances[:5]},
        "is_same must be bool": {"is_same": toy.is_same.astype(int)},
        "is_same differs from that of its pairs": {"is_same": ~toy.is_same},
        "give the distances the result": {"result": verify_distances(*_half(toy), 2)},
    }
    for message, change in wrong.items():
        with pytest.raises(ValueError, match=message):
            write(tmp_path, ReportSection(**{**vars(toy), **change}))
    assert list(tmp_path.iterdir()) == []


def _half(toy: ReportSection) -> tuple[np.ndarray, np.ndarray]:
    return toy.distances[:200], toy.is_same[:200]
