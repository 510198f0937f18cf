from __future__ import annotations

import pytest

from arcface_plus.export.statement import Statement, file_facts
from arcface_plus.models import Preprocessing


def test_only_what_was_stated_is_in_a_file(make_network):
    facts = file_facts(make_network(), Preprocessing(size=32), "fp32", Statement(data="10 people"))
    assert facts["arcface_plus.data"] == "10 people"
    assert not [key for key in facts if "license" in key]


@pytest.mark.parametrize("value", ["", "  ", "two\nlines", "tab\there"])
def test_a_statement_is_one_line_of_text(value):
    with pytest.raises(ValueError, match=r"--data-license is .*one line"):
        Statement(data_license=value)
