"""The page of findings in well-known libraries is that of its data, and what other pages say of it is computed."""

import json
import runpy
from pathlib import Path

import pytest

from dropkit.rules import RULES

ROOT = Path(__file__).parents[1]
DATA = json.loads((ROOT / "docs/findings.json").read_text(encoding="utf-8"))
SCRIPT = runpy.run_path(str(ROOT / "docs/write_findings.py"))


def words(page):
    return " ".join((ROOT / page).read_text(encoding="utf-8").split())


def count(**fields):
    return sum(all(finding[name] == value for name, value in fields.items()) for finding in DATA["findings"])


def test_the_page_is_that_of_the_data():
    """`python docs/write_findings.py` writes it."""
    assert (ROOT / "docs/findings.md").read_text(encoding="utf-8") == SCRIPT["page"](DATA)


@pytest.mark.parametrize("finding", DATA["findings"], ids=lambda finding: f"{finding['file']}:{finding['line']}")
def test_every_finding_is_of_a_rule_and_a_package_and_is_judged(finding):
    """A run with changed rules leaves findings to judge."""
    assert finding["code"] in {rule.code for rule in RULES}
    assert DATA["packages"][finding["package"]] == finding["version"]
    assert finding["verdict"] in SCRIPT["VERDICTS"]
    assert finding["fix"] in SCRIPT["FIXES"]


def test_other_pages_say_the_same():
    """The README and the page of the linter name the shares that follow from the data."""
    safe = SCRIPT["percent"](count(fix="safe"), DATA["findings"])
    wrong = count(verdict="wrong") or "none"

    assert (
        f"Of [{len(DATA['findings'])} findings](docs/findings.md) in {len(DATA['packages'])} well-known packages, "
        f"{count(verdict='right')} were right, {wrong} was wrong, and {safe} have a safe fix."
    ) in words("README.md")
    assert f"which {safe} of the [findings](findings.md) in well-known packages have" in words("docs/check.md")


def test_a_share_is_rounded_to_whole_percent():
    assert [SCRIPT["percent"](*given) for given in ((1, [{}] * 3), (0, []), (2, [{}] * 2))] == ["33 %", "0 %", "100 %"]


def test_a_verdict_stays_while_the_line_stays(tmp_path, monkeypatch):
    """A run keeps the verdict on a finding that only moved, and leaves one on another line to judge."""
    package = tmp_path / "net"
    package.mkdir()
    (package / "__init__.py").touch()
    line = "return F.dropout(x, 0.5)"
    head = "import torch.nn.functional as F\nfrom torch import nn\nclass Net(nn.Module):\n    def forward(self, x):\n"
    (package / "net.py").write_text(f"\n\n{head}        {line}\n    def again(self, x):\n        return F.dropout(x)\n")
    place = {"package": "net", "version": "1", "file": "net/net.py", "line": 5}
    old = {**place, "code": "DRP101", "text": line, "fix": "safe"}
    monkeypatch.setitem(SCRIPT["run"].__globals__, "_source", lambda *_: package)

    found = SCRIPT["run"]({"packages": {"net": "1"}, "findings": [{**old, "verdict": "right", "why": "so"}]})[
        "findings"
    ]

    assert found[0] == {**old, "line": 7, "verdict": "right", "why": "so"}
    assert [finding["verdict"] for finding in found] == ["right", "not judged"]
