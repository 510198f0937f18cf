from __future__ import annotations


def test_index_remove(cli, in_use, index):
    done = cli("index", "remove", "p3", "--index", index)
    assert done.exit_code == 0 and "removed 4 rows of p3" in done.stdout, done.output
    assert "20 rows are left" in done.stdout
    words = ["search", "--index", index, "--query", in_use.photo(3), "--model", in_use.model]
    shown = cli(*words, "--top", 30).stdout
    assert shown.count(".png │ p") == 20 and "p3/" not in shown
    done = cli("index", "remove", "p44", "--index", index)
    assert done.exit_code == 2 and "no row of 'p44': did you mean p4" in done.stderr
