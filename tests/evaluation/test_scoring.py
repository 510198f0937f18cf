from __future__ import annotations

from arcface_plus.evaluation.scoring import Scoring, score_files


def test_people_of_lfw_are_the_units_of_intervals(shared_data):
    scoring = Scoring(fars=(0.1, 0.01, 0.001))
    npz = shared_data / "embeddings" / "lfw_mobilefacenet_y1.npz"
    (entry,) = score_files([npz], [shared_data / "lfw" / "pairs.txt"], scoring)
    assert entry.units.count == 4281
