"""torch.export, AOTInductor and ONNX: in training mode eager's bits from one seed, in eval mode no trace of dropout."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from dropkit import functional as ours
from dropkit.nn import LAYERS, Dropout
from dropkit.ops import draw

pytestmark = [
    # What torch's exporters use of what torch deprecates.
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Exporting a model while it is in training mode:UserWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
]

X = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))


class Scheduled(nn.Module):
    """A rate in a buffer, which may change after the export."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.register_buffer("p", torch.tensor(0.3))

    def forward(self, input: Tensor) -> Tensor:
        return ours.dropout(self.linear(input), self.p, self.training)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), Dropout(0.3), nn.ReLU(), Dropout(0.5), nn.Linear(16, 4))


def from_one_seed(program, input):
    torch.manual_seed(3)
    with torch.no_grad():
        return program(input)


def operators(program):
    return [str(node.target) for node in program.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize("decomposed", [False, True])
@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_training_graph_is_eager(strict, decomposed):
    """It holds a draw and a drop for each dropout, and its bits are eager's, at any batch size."""
    model = network()

    program = torch.export.export(model, (X,), dynamic_shapes=({0: torch.export.Dim("n")},), strict=strict)
    program = program.run_decompositions() if decomposed else program

    dropkits = [name for name in operators(program) if "dropkit" in name]
    assert dropkits == ["dropkit.draw_v1.default", "dropkit.drop_v1.default"] * 2
    for input in (X, torch.cat([X, X, X])):
        assert torch.equal(from_one_seed(program.module(), input), from_one_seed(model, input))


@pytest.mark.parametrize("strict", [False, True])
def test_every_layer_is_exported(layer, strict):
    """One layer alone, at fixed sizes: eager's bits from one seed."""
    x = torch.randn(layer.shape)
    model = layer.module(0.4)

    program = torch.export.export(model, (x,), strict=strict).run_decompositions()

    assert torch.equal(from_one_seed(program.module(), x), from_one_seed(model, x))


@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_eval_graph_holds_no_dropout(layer, strict):
    """In eval mode nothing is left of a layer, not even a copy."""
    model = nn.Sequential(nn.ReLU(), layer.module(0.4)).eval()

    program = torch.export.export(model, (torch.randn(layer.shape),), strict=strict).run_decompositions()

    assert operators(program) == ["aten.relu.default"]


@pytest.mark.parametrize("decomposed", [False, True])
@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_rate_is_a_buffer(strict, decomposed):
    """A rate given as a tensor is read at each run of the exported program."""
    model = Scheduled()
    program = torch.export.export(model, (X,), strict=strict)
    program = program.run_decompositions() if decomposed else program
    exported = program.module()

    for p in (0.3, 0.9, 0.0, 1.0):
        model.p.fill_(p)
        exported.p.fill_(p)
        assert torch.equal(from_one_seed(exported, X), from_one_seed(model, X))


def test_a_saved_program_runs_in_a_new_process(tmp_path):
    """`import dropkit.functional` is all that a process needs to load a training graph and to get its bits."""
    model = network()
    torch.export.save(torch.export.export(model, (X,)), tmp_path / "model.pt2")
    torch.save((X, from_one_seed(model, X)), tmp_path / "expected.pt")
    script = (
        "import sys, torch, dropkit.functional\n"
        "input, expected = torch.load(sys.argv[1] + '/expected.pt')\n"
        "model = torch.export.load(sys.argv[1] + '/model.pt2').module()\n"
        "torch.manual_seed(3)\n"
        "print(torch.equal(model(input), expected))"
    )

    run = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)

    assert run.stdout == "True\n"


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True])
def test_aotinductor_is_eager(training, tmp_path):
    """A package made ahead of time gives eager's bits from one seed."""
    model = network().train(training)
    with torch.no_grad():
        program = torch.export.export(model, (X,))

    path = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "model.pt2"))

    package = torch._inductor.aoti_load_package(path)
    assert torch.equal(from_one_seed(package, X), from_one_seed(model, X))


def test_a_draw_takes_none_for_no_dimensions():
    """What AOTInductor's C++ hands over for an empty list of sizes."""
    torch.manual_seed(3)
    expected = torch.ops.dropkit.draw_v1((), device=torch.device("cpu"))

    torch.manual_seed(3)
    assert torch.equal(draw._run(None, device=torch.device("cpu")), expected)


def test_an_onnx_model_holds_no_dropout():
    """In eval mode the layers leave nothing in the ONNX graph."""
    pytest.importorskip("onnxscript")
    layers = [layer.module(0.4) for layer in LAYERS if layer.name != "Dropout1d"]  # which takes no four dimensions
    model = nn.Sequential(nn.ReLU(), *layers, nn.Tanh()).eval()

    program = torch.onnx.export(model, (torch.randn(2, 3, 4, 4),), dynamo=True, verbose=False)

    assert [node.op_type for node in program.model_proto.graph.node] == ["Relu", "Tanh"]


def test_onnx_refuses_a_training_graph():
    """ONNX has no operator for these masks; torch's error names the one it misses."""
    pytest.importorskip("onnxscript")

    with pytest.raises(torch.onnx.errors.OnnxExporterError, match=r"No ONNX function found for .*dropkit.draw_v1"):
        torch.onnx.export(network(), (X,), dynamo=True, verbose=False)


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")  # all of this exporter is deprecated
@pytest.mark.parametrize("training", [False, True])
def test_the_older_onnx_exporter(training, tmp_path):
    """In eval mode no dropout; in training mode ONNX's own, which torch's operator becomes."""
    onnx = pytest.importorskip("onnx")
    mode = torch.onnx.TrainingMode.TRAINING if training else torch.onnx.TrainingMode.EVAL
    constants = {"training": mode, "do_constant_folding": False}

    if training:
        with pytest.warns(UserWarning, match="records torch's own dropout"):
            torch.onnx.export(network(), (X,), tmp_path / "model.onnx", dynamo=False, **constants)
    else:
        torch.onnx.export(network(), (X,), tmp_path / "model.onnx", dynamo=False, **constants)

    names = [node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node]
    assert names.count("Dropout") == 2 * training
