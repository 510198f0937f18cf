from __future__ import annotations

import time

from arcface_plus.evaluation.scoring import Scoring, score_files


def test_intervals_of_six_thousand_pairs_take_less_than_three_seconds(shared_data):
    scoring = Scoring(fars=(0.1, 0.01, 0.001))
    npz = shared_data / "embeddings" / "lfw_mobilefacenet_y1.npz"
    start = time.perf_counter()
    (entry,) = score_files([npz], [shared_data / "lfw" / "pairs.txt"], scoring)
    assert time.perf_counter() - start < 3 and entry.units.count == 4281
