"""Baselines: only new findings are reported, and damaged files are errors."""

import pytest
from helpers.lint import BAD, dropkit

from dropkit.lint.engine import baseline
from dropkit.lint.engine.config import BadConfig, Config
from dropkit.lint.engine.project import check_paths


def test_a_baseline_shows_only_what_is_new(project):
    assert dropkit("--write-baseline", "known.json")[0] == 0
    assert dropkit("--baseline", "known.json")[0] == 0
    moved = BAD.replace("class", "\n\nclass") + "\n    def other(self, x):\n        return F.dropout(x, 0.25)\n"
    (project / "net.py").write_text(moved)

    code, out, _ = dropkit("--baseline", "known.json", "-f", "concise")

    assert code == 1
    assert [line.split(":")[1] for line in out.splitlines() if "DRP101" in line] == ["12"]


def test_a_file_that_is_no_baseline_is_an_error(project):
    code, _, err = dropkit("--baseline", "none.json")

    assert code == 2
    assert "no such baseline" in err
    (project / "known.json").write_text("[]")
    with pytest.raises(BadConfig, match="is not a baseline"):
        baseline.new_findings(project / "known.json", check_paths([str(project)], Config(root=project)), project)


def test_a_baseline_is_written_with_what_an_earlier_one_holds(project):
    for arguments in (["--write-baseline=b"], ["--baseline=b", "--write-baseline=b"]):
        assert dropkit(*arguments)[:2] == (0, "Wrote 1 finding to b.\n")

    assert dropkit("--baseline=b")[0] == 0


def test_a_baseline_holds_for_standard_input(project):
    dropkit("--write-baseline=b")

    assert dropkit("-", "--baseline=b", "--stdin-filename=net.py", input=BAD)[0] == 0
    assert dropkit("-", "--baseline=b", "--stdin-filename=other.py", input=BAD)[0] == 1
    assert dropkit("-", "--fix", "--baseline=b", "--stdin-filename=net.py", input=BAD)[:2] == (0, BAD)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[]", "it must be an object with format, findings"),
        ("{}", "format of it must be a whole number"),
        ("", "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ("\udcff", "it is not JSON"),
        ('{"format": 1e999}', "format of it must be a whole number"),
        ('{"format": 2, "findings": []}', "its format must be 1, got 2"),
        ('{"format": 1, "findings": 3}', "findings of it must be a list"),
        ('{"format": 1, "findings": [3]}', "finding 1 must be an object with path, code, line, count"),
        ('{"format": 1, "findings": [{"path": []}]}', "path of finding 1 must be text"),
        ('{"format": 1, "findings": [{"path": "a", "code": "b", "line": "c", "count": 1e999}]}', "a whole number"),
    ],
    ids=lambda one: one[:40],
)
def test_a_damaged_baseline_is_an_error(project, text, why):
    (project / "known.json").write_bytes(text.encode(errors="surrogateescape"))

    code, out, err = dropkit("--baseline", "known.json")

    assert (code, out) == (2, "")
    assert "known.json is not a baseline" in err
    assert why in err
