from __future__ import annotations

import pytest

from arcface_plus.cli.model_options import parse_preprocessing
from arcface_plus.models.preprocessing import INSIGHTFACE, Preprocessing


def test_preprocessing_forms():
    assert parse_preprocessing(None) is None
    assert parse_preprocessing("insightface") == INSIGHTFACE
    mine = Preprocessing(std=100.0)
    assert parse_preprocessing(mine.to_json()) == mine
    with pytest.raises(ValueError, match="not JSON"):
        parse_preprocessing("imagenet")
