"""The table of an audit fits its terminal, says what it leaves out, and folds equal layers."""

import re

import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from torch import nn

import dropkit
from dropkit.auditor.folding import folded
from dropkit.cli.audit import command

X = torch.randn(4, 8)


class Block(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.linear, self.drop, self.p = nn.Linear(8, 8), nn.Dropout(p), p

    def forward(self, x):
        return self.drop(self.linear(x)) + F.dropout(x.tanh(), 0.1, self.training)


class Deep(nn.Module):
    """Blocks of blocks, a rate of 0 and names with brackets and of great length."""

    def __init__(self, rates=(0.1,) * 6):
        super().__init__()
        self.stages = nn.ModuleList(nn.Sequential(*map(Block, rates)) for _ in range(2))
        self.off, self.last = nn.Dropout(0.0), nn.Linear(8, 8)
        self.hidden = {"a[bold]": nn.Dropout(0.3), ":smile:": nn.Dropout(0.3)}
        self.a_name_of_a_module_that_is_much_longer_than_a_column_can_be = nn.Dropout(0.2)

    def forward(self, x):
        for stage in self.stages:
            x = stage(x)
        for drop in self.hidden.values():
            x = drop(x.tanh())
        x = self.a_name_of_a_module_that_is_much_longer_than_a_column_can_be(self.last(self.off(x)))
        return F.linear(x, self.last.weight) + F.dropout(x.tanh(), 0.5, self.training)


@pytest.fixture(scope="module")
def report():
    return dropkit.audit(Deep(), X)


@pytest.mark.parametrize("width", [72, 80, 100, 120, 200])
def test_no_line_is_wider_than_the_terminal(report, width):
    """But for words that are longer: names, and paths with lines, which are not broken."""
    for line in report.table(width).split("\n"):
        assert len(line) <= width or len(line.split()) == 1, line


@pytest.mark.parametrize("width", [50, 80, 120, None])
def test_a_place_is_never_broken(report, width):
    """Editors and terminals turn it into a link."""
    places = {site.place for site in report.sites if not site.is_module}

    text = report.table(width, wide=width is None)

    for place in places:
        assert re.search(rf"(?<!\S)(\S*/)?test_audit_table.py:{place.line}(?!\S)", text)


def test_names_survive_as_they_are(report):
    """Brackets are no markup, colons no pictures."""
    text = report.table(wide=True)

    assert "hidden['a[bold]']" in text
    assert "hidden[':smile:']" in text


@pytest.mark.parametrize("width", [50, 80, 120, 250])
def test_columns_are_there_or_said_to_be_left_out(report, width):
    """Never cut, and never lost in silence."""
    text = report.table(width)
    head, _, rest = text.partition("\n")
    said = " ".join(rest.partition("columns left out: ")[2].partition("(")[0].split())

    headings = list(report.rows[0].cells)
    assert [heading for heading in headings if heading not in head] == [part for part in said.split(", ") if part]
    assert ("--wide" in text) == bool(said)


def test_a_wide_table_has_all_columns(report):
    """However long its lines are."""
    text = report.table(wide=True)

    assert all(heading in text.split("\n")[0] for heading in report.rows[0].cells)
    assert "left out" not in text


def test_equal_layers_share_a_row(report):
    """Their rates are a range, their memory a sum; `full` shows each."""
    text, full = report.table(wide=True), report.table(wide=True, full=True)

    assert "stages.0.0-5.drop " in text
    assert "stages.1.0-5.drop " in text
    assert "stages.0.3.drop" not in text
    assert all(f"stages.{i}.{j}.drop " in full for i in range(2) for j in range(6))


def test_sites_with_rate_0_are_counted_and_shown_on_request(report):
    """They are switched off on purpose."""
    assert not re.search(r"^off ", report.table(), re.MULTILINE)
    assert "1 site at rate 0 not shown (--full" in report.table(wide=True)
    assert re.search(r"^off ", report.table(full=True), re.MULTILINE)
    assert "not shown" not in report.table(full=True)


def test_rates_that_grow_with_depth_share_a_row():
    """As those of stochastic depth do."""
    text = dropkit.audit(Deep((0.1, 0.2, 0.3)), X).table(wide=True)

    assert re.search(r"stages\.0\.0-2\.drop +Dropout +0\.1-0\.3 ", text)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a", "b"], ["a", "b"]),
        (["a.0", "a.1", "a.2"], ["a.0-2"]),
        (["a.0", "a.2", "a.3", "a.10"], ["a.0,2-3,10"]),
        (["a.0.b", "a.0.c", "a.1.b", "a.1.c"], ["a.0-1.b", "a.0-1.c"]),
        (["a.0.b.0", "a.0.b.1", "a.1.b.0", "a.1.b.1"], ["a.0.b.0-1", "a.1.b.0-1"]),
        (["a.0.b.3", "a.1.b.3"], ["a.0-1.b.3"]),
        (["0", "1"], ["0-1"]),
        (["a.0", "a.0"], ["a.0"]),
        (["", ""], [""]),
        (["a1", "a2"], ["a1", "a2"]),
    ],
)
def test_names_are_folded_along_one_index(names, expected):
    """Each name is in one row."""
    rows = folded(names, lambda name: name, lambda name: None)

    assert [name for name, _ in rows] == expected
    assert sorted(name for _, row in rows for name in row) == sorted(names)


def test_layers_of_different_kinds_are_not_folded():
    """Their rows would say less than is known."""
    rows = folded([("a.0", 1), ("a.1", 2)], lambda item: item[0], lambda item: item[1])

    assert [name for name, _ in rows] == ["a.0", "a.1"]


def test_a_finding_of_many_sites_is_printed_once():
    """With their names, folded."""
    model = nn.Sequential(*(nn.Sequential(nn.Dropout(0.1), nn.Dropout(0.1), nn.Linear(8, 8)) for _ in range(9)))

    text = dropkit.audit(model, X).table(80)

    assert text.count("DRP304 warning") <= 9
    assert (
        dropkit.audit(nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.9)) for _ in range(4))), X)
        .table(80)
        .count("DRP302 info")
        == 1
    )


def test_the_command_has_both_options(tmp_path):
    """They mean what they mean in Python."""
    file = tmp_path / "net.py"
    file.write_text(
        "from torch import nn\n"
        "def make(): return nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.2), nn.Dropout(0.0), nn.Linear(8, 2))\n"
    )

    def run(*options):
        return CliRunner().invoke(command, [f"{file}:make", "--input", "8", *options], env={"COLUMNS": "60"}).output

    assert "columns left out" in run()
    assert "at rate 0 not shown" in run()
    assert "columns left out" not in run("--wide")
    assert "at rate 0 not shown" not in run("--full")
