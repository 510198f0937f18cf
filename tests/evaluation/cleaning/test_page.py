from __future__ import annotations

import base64
import re

import cv2
import numpy as np
import pytest

from arcface_plus.data.images import encode_jpeg
from arcface_plus.evaluation.cleaning.findings import Finding
from arcface_plus.evaluation.cleaning.labels import LabelScores
from arcface_plus.evaluation.cleaning.page import MOST_FINDINGS, MOST_PHOTOGRAPHS, write_page
from arcface_plus.evaluation.cleaning.photographs import open_photographs
from arcface_plus.evaluation.cleaning.search import Found

PEOPLE = ["<script>alert(1)", "ann & bob", "zoe"]


@pytest.fixture
def photographs(tmp_path):
    for number, person in enumerate(PEOPLE):
        (tmp_path / person).mkdir()
        for image in range(7):
            pixels = np.full((200, 150, 3), 20 * number + image, dtype=np.uint8)
            (tmp_path / person / f"{image}.jpg").write_bytes(encode_jpeg(pixels))
    return open_photographs(tmp_path)


def found(*findings: Finding) -> Found:
    own = np.linspace(0, 1, 21)
    return Found(
        list(findings),
        LabelScores(np.zeros(21, dtype=bool), own, own, np.zeros(21, dtype=np.int64)),
        0.01,
        0.62,
    )


def pictures(html: str) -> list[tuple[str, int]]:
    """Return the name of every picture in the page, and its grey level."""
    tags = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)" alt="([^"]*)"', html)
    decoded = [
        (name, cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), 0))
        for data, name in tags
    ]
    assert all(max(image.shape) == 96 for _, image in decoded)
    return [(name, round(image.mean())) for name, image in decoded]


def test_each_finding_has_its_photographs_side_by_side(photographs, tmp_path) -> None:
    write_page(
        tmp_path / "page.html",
        found(
            Finding("duplicates", 0.99, (1,), 0, kept=2),
            Finding("labels", 0.8, (7,), 1, 2),
            Finding("merge", 0.9, tuple(range(14, 21)), 2, 1),
            Finding("split", 0.7, (0, 1), 0),
        ),
        photographs,
        title="faces",
    )
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    levels = [level for _, level in pictures(html)]
    # The suspect; the most typical of its own person, itself left out; those of the other one.
    assert levels == [
        *(1, 2),
        *(20, 26, 25, 24, 23, 46, 45, 44, 43),
        *(46, 45, 44, 43, 26, 25, 24, 23),
        *(0, 1, 6, 5, 4, 3),
    ]
    assert "21 photographs of 3 people" in html
    for words in ("0.990", "0.800", "ann &amp; bob", "2 photographs", "0.62"):
        assert words in html
    assert "<script" not in html and "&lt;script&gt;alert(1)" in html
    assert "http" not in re.sub(r'http-equiv="Content-Security-Policy"', "", html)


def test_the_page_is_bounded_and_says_so(photographs, tmp_path) -> None:
    many = [Finding("merge", 0.9, tuple(range(14, 21)), 2, 1)] * (MOST_FINDINGS + 30)
    write_page(tmp_path / "page.html", found(*many), photographs, title="faces")
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert len(pictures(html)) == MOST_FINDINGS * 2 * MOST_PHOTOGRAPHS
    assert f"The first {MOST_FINDINGS} are shown" in html and f": {MOST_FINDINGS + 30}<" in html


def test_a_photograph_that_is_gone_is_named(photographs, tmp_path) -> None:
    (tmp_path / "zoe" / "3.jpg").unlink()
    write_page(
        tmp_path / "page.html",
        found(Finding("duplicates", 0.99, (17,), 2, kept=18)),
        photographs,
        title="faces",
    )
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert [name for name, _ in pictures(html)] == ["zoe/4.jpg"]
    assert '<span class="missing">zoe/3.jpg</span>' in html


def test_nothing_found_is_said(photographs, tmp_path) -> None:
    write_page(tmp_path / "page.html", found(), photographs, title="faces")
    assert "nothing was found" in (tmp_path / "page.html").read_text(encoding="utf-8")
