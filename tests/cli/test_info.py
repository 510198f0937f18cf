"""``arcface-plus info``."""

from __future__ import annotations

import json


def test_a_network_is_shown_with_its_cost(cli) -> None:
    answer = cli("info", "--model", "mobilefacenet", "--size", "64")
    shown = json.loads(answer.stdout)
    assert (shown["name"], shown["pixels"], shown["embedding_dim"]) == ("mobilefacenet", 64, 512)
    assert 0 < shown["multiply_adds"] < 437_520_896
    wrong = cli("info", "--model", "mobilefacnet")
    assert wrong.exit_code == 2 and "nearest name is 'mobilefacenet'" in wrong.stderr


def test_what_is_installed_is_shown(cli) -> None:
    shown = json.loads(cli("info").stdout)
    assert shown["packages"]["torch"] and isinstance(shown["extras"]["timm"], bool)
