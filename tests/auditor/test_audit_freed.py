"""What an audit leaves behind: nothing that keeps the model alive, and no frames of its own in a failed test."""

import gc
import subprocess
import sys
import weakref
from contextlib import suppress

import pytest
import torch
import torch.nn.functional as F
from helpers.audit import KINDS, Restless, net
from torch import nn

import dropkit

X = torch.randn(8, 16)


class FailsInEval(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 16)

    def forward(self, x):
        assert self.training
        return F.dropout(self.linear(x), 0.5)


def in_place():
    return nn.Sequential(nn.Linear(16, 16), nn.Softmax(-1), nn.Dropout(0.5, inplace=True), nn.Linear(16, 2))


CASES = {
    **{kind: (make, torch.randn(shape)) for kind, (make, shape, *_) in KINDS.items()},
    "inputs and labels": (net, [X, torch.zeros(8)]),
    "an error in evaluation": (FailsInEval, X),
    "an error in backward": (in_place, X),
    "an error in training": (net, torch.randn(3, 3)),
    "a batch that is refused": (net, {"a": X}),
    "a model that changes itself": (Restless, torch.randn(8, 8)),
    "a compiled model": (lambda: torch.compile(net()), X),
}


@pytest.mark.parametrize(("make", "inputs"), CASES.values(), ids=CASES)
def test_a_model_is_freed_after_an_audit_without_the_garbage_collector(make, inputs):
    """Its memory is needed for the training that follows. The report, and a caught error, may live on."""
    model = make()
    reference, report = weakref.ref(model), None
    gc.collect()
    gc.disable()
    try:
        with suppress(RuntimeError, TypeError):
            report = dropkit.audit(model, inputs)
        del model
        is_alive = reference() is not None
    finally:
        gc.enable()

    assert not is_alive
    assert report is None or report.to_html()


def test_the_first_audit_of_a_process_frees_its_model_too():
    """torch then imports its compiler."""
    program = (
        "import gc, weakref, torch, dropkit\n"
        "gc.disable()\n"
        "model = torch.nn.Dropout(0.5)\n"
        "reference = weakref.ref(model)\n"
        "dropkit.audit(model, torch.ones(4, 4))\n"
        "del model\n"
        "print(reference())\n"
    )

    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "None\n"


@pytest.mark.parametrize("use", ["assert_dropout_ok(model, x)", "fixture(model, x)"], ids=["function", "fixture"])
def test_a_failed_test_shows_its_own_line_and_no_frame_of_dropkit(run_pytest, use):
    """As pytest's own assertions do."""
    output = run_pytest(
        "import torch\nfrom dropkit.testing import assert_dropout_ok\n"
        "def test(request):\n"
        "    fixture = request.getfixturevalue('assert_dropout_ok')\n"
        "    model, x = torch.nn.Sequential(torch.nn.Dropout(0.1), torch.nn.Dropout(0.1)), torch.ones(3, 4)\n"
        f"    {use}\n"
    )

    assert use in output
    assert "DRP304" in output
    assert "testing.py" not in output


@pytest.fixture
def run_pytest(tmp_path):
    """Run pytest on a program in a process of its own."""

    def run(program):
        (tmp_path / "test_program.py").write_text(program)
        words = [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "test_program.py",
        ]
        return subprocess.run(words, capture_output=True, text=True, cwd=tmp_path).stdout

    return run
