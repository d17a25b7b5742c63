"""What the linter's rules say without torch, held against torch itself: their examples run, and fail as they say."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import dropkit
from dropkit.diagnostics import Severity
from dropkit.lint.engine.check_file import check
from dropkit.lint.semantic.model import read
from dropkit.lint.semantic.source_text import Text
from dropkit.rules import RULES

EXAMPLES = {
    f"{rule.code}-{index}": example
    for rule in RULES
    if rule.check_source is not None
    for index, example in enumerate(rule.examples)
}
# In-place dropout behind a layer of the first list makes backward fail, since that layer keeps its output for it.
KEEP_THEIR_OUTPUT = [
    *(nn.ReLU(), nn.ReLU(True), nn.Sigmoid(), nn.Tanh(), nn.Softmax(-1), nn.LogSoftmax(-1), nn.Softmin(-1)),
    *(nn.LeakyReLU(inplace=True), nn.ELU(inplace=True), nn.CELU(inplace=True), nn.SELU(True), nn.RReLU(inplace=True)),
]
DO_NOT_KEEP_IT = [
    *(nn.GELU(), nn.SiLU(True), nn.LeakyReLU(), nn.ELU(), nn.SELU(), nn.ReLU6(True), nn.Hardswish(True), nn.Mish(True)),
    *(nn.Linear(8, 8), nn.LayerNorm(8), nn.MaxPool1d(2), nn.Dropout(0.5), nn.GLU()),
]


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
@pytest.mark.filterwarnings("ignore")
def test_both_examples_run(example):
    """Examples are programs: what they show can be seen by running them."""
    for source in (example.bad, example.good):
        exec(compile(source, "example.py", "exec"), {"__name__": "example"})


@pytest.mark.parametrize("before", [*KEEP_THEIR_OUTPUT, *DO_NOT_KEEP_IT], ids=str)
def test_drp401_reports_exactly_the_layers_behind_which_backward_fails(before):
    """torch raises in backward where the rule reports in-place dropout, and nowhere else."""
    source = f"from torch import nn\nnet = nn.Sequential(nn.{before}, nn.Dropout(0.5, inplace=True))\n"
    codes = [diagnostic.code for diagnostic in check(read("net.py", Text(source.encode())), RULES)]
    x = torch.randn(4, 8, requires_grad=True)

    output = nn.Dropout(0.5, inplace=True)(before(x + 0)).sum()

    assert ("DRP401" in codes) == (before in KEEP_THEIR_OUTPUT)
    if before in DO_NOT_KEEP_IT:
        output.backward()
    else:
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            output.backward()


def audited(name):
    """Audit a model of a class with this name, which calls `F.dropout` without a training flag."""
    model = type(name, (nn.Module,), {"forward": lambda self, x: F.dropout(x, 0.5)})()
    return [(finding.code, finding.severity) for finding in dropkit.audit(model, torch.randn(8, 4)).findings]


@pytest.mark.parametrize(
    "name",
    [
        *("Denoiser", "AlwaysX", "UncertaintyHead", "BayesY", "BayesianNet", "NoiseRobust", "EpistemicHead"),
        *("Preneter", "McDonald", "CarloNet"),
    ],
)
def test_part_of_a_name_is_no_excuse_in_an_audit(name):
    """As in the linter, only whole words of a class name say that dropout stays on by intention."""
    assert audited(name) == [("DRP101", Severity.ERROR)]
    assert audited("MCDropout") == [("DRP101", Severity.INFO)]
