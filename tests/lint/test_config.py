"""Settings: which rules run, which files are excluded, and invalid values."""

import pytest
from helpers.lint import BAD, codes, dropkit

from dropkit.lint.engine.config import BadConfig, Config
from dropkit.lint.engine.project import check_paths, check_source


def test_settings_choose_rules(project):
    def found(table):
        return codes(check_paths([str(project)], Config.parse(table, project)))

    assert found({}) == ["DRP101"]
    assert found({"select": ["DRP2"]}) == []
    assert found({"ignore": ["functional-dropout-ignores-mode"]}) == []
    assert found({"per-file-ignores": {"net.py": ["DRP1"]}}) == []
    assert found({"per-file-ignores": {"other/*": ["DRP1"]}}) == ["DRP101"]
    assert found({"extend-exclude": ["net.py"]}) == []
    assert found({"severity": "error"}) == ["DRP101"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"selct": []}, "selct is not a setting; did you mean select"),
        ({"select": "DRP101"}, "select must be a list of strings, got 'DRP101'"),
        ({"ignore": ["DRP999"]}, "got 'DRP999'"),
        ({"select": ["DRP1O1"]}, "got 'DRP1O1'; did you mean DRP101?"),
        ({"preview": 1}, "preview must be true or false, got 1"),
        ({"severity": "high"}, "severity must be error, warning or info, got 'high'"),
        ({"per-file-ignores": ["a"]}, "per-file-ignores must be a table"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path, table, message):
    with pytest.raises(BadConfig, match=message):
        Config.parse(table, tmp_path)


def test_the_nearest_settings_hold(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[tool.dropkit]\nignore = ["DRP101"]\n')
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "pyproject.toml").write_text("[project]\n")
    (inner / "net.py").write_text(BAD)

    assert dropkit(inner)[0] == 0
    (tmp_path / "pyproject.toml").write_text("[tool.dropkit\n")
    code, _, err = dropkit(inner)
    assert code == 2
    assert "pyproject.toml" in err


def test_a_byte_order_mark_is_not_part_of_the_settings(project):
    (project / "pyproject.toml").write_text('\ufeff[tool.dropkit]\nignore = ["DRP101"]\n')

    assert dropkit()[0] == 0


def test_names_and_patterns_of_many_stars_are_matched(project):
    config = Config(root=project, exclude=("*a" * 40 + "b",), per_file_ignores={"*a" * 40 + "c/x": ("DRP1",)})

    assert len(check_source("a" * 200 + ".py", BAD.encode(), config).findings) == 1
    assert not config.matches("a" * 200, config.exclude[0])


WRONG = {
    "number": "3", "float": "1e999", "huge": "0x" + "f" * 10_000, "text": '"a"', "list": "[1]", "lists": "[[]]",
    "table": "{a = 1}", "date": "2020-01-01", "tables": "{a = {}}", "mixed": '["DRP1", 3]', "boolean": "true",
}  # fmt: skip


KINDS = {
    "select": (), "extend-select": (), "ignore": (), "exclude": (), "extend-exclude": (), "always-on-names": (),
    "preview": ("boolean",), "respect-gitignore": ("boolean",), "allow-unread": ("boolean",), "severity": (),
    "per-file-ignores": (),
}  # fmt: skip


@pytest.mark.parametrize("key", KINDS)
def test_a_setting_of_another_kind_is_named(project, key):
    """For every wrong type, the error is one line with the value, and the exit code is 2."""
    for kind in WRONG.keys() - KINDS[key]:
        (project / "pyproject.toml").write_text(f"[tool.dropkit]\n{key} = {WRONG[kind]}\n")

        code, out, err = dropkit()

        assert (code, out) == (2, "")
        assert err.startswith("Error: ")
        assert f"pyproject.toml: {key}" in err
        assert " must " in err
        assert len(err) < 500


def test_a_pyproject_that_does_not_name_dropkit_is_not_parsed(project):
    """It has no settings for it, whatever else is wrong with it."""
    (project / "pyproject.toml").write_text("[tool.other\n")

    assert dropkit()[0] == 1


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("tool = 3\n", "tool must be a table, got 3"),
        ("[[tool]]\n", "tool must be a table"),
        ("tool.dropkit = []\n", "tool.dropkit must be a table, got []"),
        ("[[tool.dropkit]]\n", "tool.dropkit must be a table"),
        ("x = " + "[" * 100_000, "nested too deeply"),
        ("x = " + "9" * 100_000, "Exceeds the limit"),
        ("[tool.dropkit]\n\udcff = 1\n", "utf-8"),
        ("[tool.dropkit]\n'\x1b[2J' = 1\n", "pyproject.toml"),
    ],
    ids=["tool", "tools", "dropkit", "dropkits", "nested", "digits", "bytes", "escape"],
)
def test_a_pyproject_of_another_shape_is_one_line(project, text, named):
    (project / "pyproject.toml").write_bytes(f"{text}\n# dropkit\n".encode(errors="surrogateescape"))

    code, out, err = dropkit()

    assert (code, out) == (2, "")
    assert named in err
    assert "\x1b" not in err
