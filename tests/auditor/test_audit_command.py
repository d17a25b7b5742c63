"""`dropkit audit`, `assert_dropout_ok`, the pytest plugin and the page."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from torch import nn

import dropkit
from dropkit.cli.audit import command
from dropkit.testing import assert_dropout_ok

PROGRAM = """
import torch
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3)
        self.drop = nn.Dropout2d(0.2)
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        x = self.drop(self.conv(x)).relu().mean((2, 3))
        return self.head(F.dropout(x, 0.3, {training}))


def make_model():
    return Net()


def make_inputs():
    return torch.zeros(4, 1, 9, 9)


def make_named():
    return {{"x": torch.zeros(4, 1, 9, 9)}}


broken = 7
model = Net()
"""


@pytest.fixture
def program(tmp_path):
    file = tmp_path / "net.py"
    file.write_text(PROGRAM.format(training="self.training"))
    (tmp_path / "bad.py").write_text(PROGRAM.format(training="True"))
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


@pytest.mark.parametrize("name", ["make_model", "Net", "model"])
def test_a_function_a_class_or_a_module_is_audited(program, name):
    """Output that is not a terminal has no colours."""
    done = run(f"{program}/net.py:{name}", "--input", "1x9x9", "--wide")

    assert done.exit_code == 0
    assert "drop " in done.output
    assert "8 x 8 x 7 x 7" in done.output
    assert "\x1b" not in done.output


@pytest.mark.parametrize("inputs", ["make_inputs", "make_named"])
def test_inputs_come_from_a_function_too(program, inputs):
    """A tensor, or a dict with names of forward's arguments."""
    done = run(f"{program}/net.py:Net", "--inputs", f"{program}/net.py:{inputs}", "--json")

    assert [site["kind"] for site in json.loads(done.output)["sites"]] == ["Dropout2d", "dropout"]


def test_a_finding_gives_exit_code_1_unless_it_is_ignored(program):
    """As a process, with its real exit code."""
    target = f"{program}/bad.py:Net"

    def audit(*options):
        words = [sys.executable, "-m", "dropkit", "audit", target, "--input", "1x9x9", *options]
        return subprocess.run(words, capture_output=True, text=True, timeout=120)

    done = audit()

    assert done.returncode == 1
    assert "DRP101 error: functional dropout does not follow model.eval()" in done.stdout
    assert "bad.py:16" in done.stdout
    assert audit("--ignore", "DRP1").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["net", "--input", "3"], "must be FILE.py:NAME or package.module:NAME, got 'net'"),
        (["{}/net.py:Net"], "give --input SHAPE, such as --input 1x28x28"),
        (["{}/net.py:Net", "--input", "3", "--inputs", "a.py:b"], "not both"),
        (["{}/net.py:Net", "--input", "3y4"], "must be sizes and perhaps a dtype"),
        (["{}/net.py:Net", "--input", "3:float99"], "must be sizes and perhaps a dtype"),
        (["{}/net.py:Nett", "--input", "3"], "net.py has no Nett; it has F, Net"),
        (["{}/none.py:Net", "--input", "3"], "file not found"),
        (["no.such.module:Net", "--input", "3"], "module not found: no.such.module"),
        (["{}/net.py:broken", "--input", "3"], "must be a module or make one, got int"),
        (["{}/net.py:make_inputs", "--input", "3"], "must be or make a torch.nn.Module, got Tensor"),
        (
            ["{}/net.py:Net", "--input", "5x9x9"],
            "could not be run (with inputs of shape (8, 5, 9, 9), nor (5, 9, 9)): RuntimeError",
        ),
        (["{}/net.py:Net", "--input", "1x9x9", "--ignore", "E501"], "must hold codes such as DRP101 or DRP1"),
    ],
)
def test_a_wrong_argument_is_named_and_gives_exit_code_2(program, arguments, words):
    """The audit could not be done."""
    done = run(*(argument.format(program) for argument in arguments))

    assert done.exit_code == 2
    assert words in done.output


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("def make(needed): pass", "make could not be loaded: TypeError"),
        ("def make(): raise KeyError('no')", "could not be loaded: KeyError: 'no'"),
        ("def make(): raise SystemExit(0)", "could not be loaded: SystemExit: 0"),
        ("import no_such_module", "could not be loaded: ModuleNotFoundError: No module named 'no_such_module'"),
        ("def make(:", "could not be loaded: SyntaxError"),
    ],
)
def test_a_program_that_fails_gives_exit_code_2(tmp_path, body, words):
    """Any exception of the user's code, `SystemExit` too."""
    (tmp_path / "fails.py").write_text(body)

    done = run(f"{tmp_path}/fails.py:make", "--input", "3")

    assert (done.exit_code, words in done.output) == (2, True)


def test_a_page_in_a_missing_folder_is_rejected_before_the_audit(program):
    """The work of the audit would be lost."""
    done = run(f"{program}/net.py:Net", "--input", "1x9x9", "--html", f"{program}/none/page.html")

    assert done.exit_code == 2
    assert "--html: must lie in a folder that exists" in done.output


def test_a_page_is_not_written_through_a_link(program):
    """The target of the link keeps its content, and the exit code says that there is no page."""
    (program / "other").write_text("kept")
    (program / "page.html").symlink_to("other")

    done = run(f"{program}/net.py:Net", "--input", "1x9x9", "--html", f"{program}/page.html")

    assert (done.exit_code, (program / "other").read_text()) == (2, "kept")
    assert "page.html could not be written: must not be a symbolic link" in done.output


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        (["1x9x9"], "8 x 8 x 7 x 7"),
        (["4x1x9x9"], "4 x 8 x 7 x 7"),
        (["1x9x9", "--batch", "3"], "3 x 8 x 7 x 7"),
        (["1x1x9x9"], "1 x 8 x 7 x 7"),
    ],
)
def test_a_shape_may_have_the_batch_size_or_not(program, options, shape):
    """What the model accepts decides, first without; `--batch` means without."""
    done = run(f"{program}/net.py:Net", "--wide", "--input", *options)

    assert (done.exit_code, shape in done.output) == (0, True), done.output


def test_with_a_batch_size_a_shape_has_none(program):
    """The error shows the shape that was tried."""
    done = run(f"{program}/net.py:Net", "--input", "4x1x9x9", "--batch", "2")

    assert (done.exit_code, "of shape (2, 4, 1, 9, 9))" in done.output) == (2, True)


def test_an_input_of_integers_is_made(tmp_path):
    """They are 0 or 1, so that an embedding of two tokens accepts them."""
    (tmp_path / "tokens.py").write_text(
        "from torch import nn\ndef make(): return nn.Sequential(nn.Embedding(2, 4), nn.Dropout(), nn.Linear(4, 2))\n"
    )

    done = run(f"{tmp_path}/tokens.py:make", "--input", "6:int64", "--batch", 3, "--wide")

    assert "3 x 6 x 4" in done.output


def good():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2))


class Bad(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        return self.linear(F.dropout(x, 0.5))


def test_assert_dropout_ok_returns_the_report():
    """A model without findings passes."""
    assert assert_dropout_ok(good(), torch.randn(8, 4)).sites[0].name == "2"


def test_assert_dropout_ok_fails_with_findings_and_what_to_do():
    """The message has code, text, line and the command that explains it."""
    with pytest.raises(AssertionError) as failed:
        assert_dropout_ok(Bad(), torch.randn(8, 4))

    text = str(failed.value)
    assert "DRP101 error: functional dropout does not follow model.eval()" in text
    assert Path(__file__).name in text
    assert "dropkit explain DRP101" in text


def test_assert_dropout_ok_skips_rules_and_low_severities():
    """Findings of severity info fail on request only."""
    assert_dropout_ok(Bad(), torch.randn(8, 4), ignore=["DRP101"])
    normed = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(4), nn.Linear(4, 2))

    assert_dropout_ok(normed, torch.randn(8, 4))
    with pytest.raises(AssertionError, match="DRP407 info: before batch norm"):
        assert_dropout_ok(normed, torch.randn(8, 4), severity="info")
    with pytest.raises(ValueError, match="severity must be one of error, warning, info, got 'high'"):
        assert_dropout_ok(good(), torch.randn(8, 4), severity="high")


def test_the_fixture_needs_no_import(assert_dropout_ok):
    """The plugin provides it."""
    assert assert_dropout_ok(good(), torch.randn(8, 4)).findings == ()


def test_the_plugin_does_not_import_torch():
    """Every pytest run of every user loads the plugin."""
    program = "import sys, dropkit.pytest_plugin; print('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "False\n"


def test_the_page_has_all_findings_and_escapes_names():
    """A module may have any name."""

    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.add_module("<b>&", nn.Dropout(0.25))

        def forward(self, x):
            return F.dropout(self._modules["<b>&"](x), 0.5)

    report = dropkit.audit(Odd(), torch.randn(8, 4))
    page = report.to_html()

    assert "&lt;b&gt;&amp;" in page
    assert "<b>&" not in page
    for finding in report.findings:
        assert finding.code in page
    assert "http" not in page.replace("http-equiv", "")
    assert report._repr_html_().startswith("<style>")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_a_browser_shows_the_page_without_errors_or_requests(tmp_path):
    """A faulty page shows that the browser would report both."""
    sync = pytest.importorskip("playwright.sync_api")
    page_file, faulty = tmp_path / "audit.html", tmp_path / "faulty.html"
    page_file.write_text(dropkit.audit(Bad(), torch.randn(8, 4)).to_html())
    faulty.write_text('<script>nothing()</script><img src="http://127.0.0.1:9/x.png">')

    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        errors, requests = visit(browser, page_file)
        expected = visit(browser, faulty)
        browser.close()

    assert errors == []
    assert requests == [page_file.as_uri()]
    assert all(expected)
    assert len(expected[1]) == 2


def visit(browser, file):
    page, errors, requests = browser.new_page(), [], []
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(file.as_uri())
    page.wait_for_load_state("networkidle")
    return errors, [url for url in requests if not url.startswith("data:")]
