"""torch.export, AOTInductor and ONNX: torch's own operators in training mode, no dropout in eval mode."""

import subprocess
import sys
import zipfile
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dropkit
from dropkit import functional, random
from dropkit.nn import LAYERS, Dropout
from dropkit.ops import draw_key

pytestmark = [
    # Deprecated features of torch that its own exporters use.
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
        return functional.dropout(self.linear(input), self.p, self.training)


class Wrapped(nn.Module):
    """A dropout function between other operations."""

    def __init__(self, function, inplace: bool) -> None:
        super().__init__()
        self.function, self.inplace = function, inplace

    def forward(self, input: Tensor) -> Tensor:
        return self.function(input * 2, 0.4, True, self.inplace) + 1


def network(dropout: type[nn.Module] = Dropout) -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), dropout(0.3), nn.Linear(16, 4), dropout(0.5))


def from_one_seed(program, input):
    torch.manual_seed(3)
    with torch.no_grad():
        return program(input)


def calls(program):
    """The operators of a program, with their arguments other than tensors."""
    nodes = [node for node in program.graph.nodes if node.op == "call_function"]
    return [(str(node.target), *(arg for arg in node.args if not isinstance(arg, torch.fx.Node))) for node in nodes]


def operators(program):
    return [call[0] for call in calls(program)]


@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_training_graph_is_torchs(strict):
    """The program has the operators of torch's layers; under install its output equals that of eager mode."""
    model, batch = network(), ({0: torch.export.Dim("n")},)

    program, torchs = (
        torch.export.export(module, (X,), dynamic_shapes=batch, strict=strict)
        for module in (model, network(nn.Dropout))
    )

    assert calls(program) == calls(torchs)
    assert calls(program.run_decompositions()) == calls(torchs.run_decompositions())
    assert operators(program).count("aten.dropout.default") == 2
    with dropkit.installed():
        for ran in (program, program.run_decompositions()):
            for input in (X, torch.cat([X, X])):
                assert torch.equal(from_one_seed(ran.module(), input), from_one_seed(model, input))


@pytest.mark.parametrize("functional", [False, True], ids=["module", "function"])
@pytest.mark.parametrize("inplace", [False, True], ids=["", "inplace"])
@pytest.mark.parametrize("strict", [False, True], ids=["", "strict"])
def test_every_layer_is_exported_as_torchs(shared_layer, strict, inplace, functional):
    """Batched and not, in place and not: the operators and numbers in the graph are those of torch's layer."""
    layer, torchs_layer = shared_layer, shared_layer.counterpart
    ignored = inplace and "Alpha" in layer.name and not functional  # torch's modules ignore it

    def program(function, module, inplace, x):
        kept = Wrapped(function, inplace) if functional else nn.Sequential(nn.Tanh(), module(0.4, inplace), nn.ReLU())
        return torch.export.export(kept, (x,), strict=strict)

    for shape in (layer.example_shape, layer.example_shape[1:])[: 2 if layer.name in ("Dropout1d", "Dropout3d") else 1]:
        x = torch.randn(shape)
        exported = program(layer.function, layer.module, inplace and not ignored, x)
        torchs = program(torchs_layer.function, torchs_layer.module, inplace, x)
        assert calls(exported) == calls(torchs)
    if ignored:
        assert f"aten.{torchs_layer.operator}_.default" in operators(program(layer.function, layer.module, True, x))


@pytest.mark.parametrize("strict", [False, True])
def test_fused_functions_are_exported_as_torchs(strict):
    """The layers decompose into torch's operators."""

    class Fused(nn.Module):
        def forward(self, x):
            x = functional.bias_act_dropout_add(functional.dropout_add(x, x, 0.3), torch.ones(8), x, 0.4)
            return functional.dropout_add_norm(x, x, p=0.2, row_scale=x[:, 0])

    names = operators(torch.export.export(Fused(), (X,), strict=strict))

    assert names.count("aten.dropout.default") == 3
    assert all(name.startswith("aten.") for name in names)


class Attention(nn.Module):
    def forward(self, x):
        return F.scaled_dot_product_attention(x, x, x, dropout_p=0.5)


INSTALLED = {
    "layers": (lambda: nn.Sequential(nn.ReLU(), nn.FeatureAlphaDropout(0.4), nn.Dropout1d(0.4, inplace=True)), X),
    "attention": (Attention, torch.randn(2, 2, 4, 8)),
}


@pytest.mark.parametrize("name", INSTALLED)
def test_install_changes_no_exported_program(name):
    """Exported and decomposed under install, torch's own layers give the same program as without."""
    make, x = INSTALLED[name]
    model, programs = make(), []
    for install in (dropkit.uninstall, dropkit.install):
        install()
        program = torch.export.export(model, (x,))
        programs.append((calls(program), calls(program.run_decompositions())))
    dropkit.uninstall()

    assert programs[0] == programs[1]


@pytest.mark.filterwarnings("ignore:The tensor attributes self._flat_weights:UserWarning")
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_a_recurrent_network_decomposed_under_install_drops_by_torch(kind):
    """The dropout between recurrent layers, which torch's decomposition loses, is torch's operator in the program."""
    with dropkit.installed():
        program = torch.export.export(kind(8, 4, 2, dropout=0.5), (X[:1],)).run_decompositions()

    dropouts = [name for name in operators(program) if "drop" in name]
    assert dropouts == ["aten.native_dropout.default"]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("key", [lambda: 7, random.draw], ids=["given", "drawn"])
def test_a_key_is_exported_as_dropkits(key, strict):
    """With a key, for which torch has no operator, the program uses dropkit's and equals eager mode to the bit."""

    class Keyed(nn.Module):
        def forward(self, x):
            return functional.dropout(x, 0.3, key=key())

    program = torch.export.export(Keyed(), (X,), strict=strict).run_decompositions()

    assert operators(program)[-1] == "dropkit.drop_v1.default"
    assert torch.equal(from_one_seed(program.module(), X), from_one_seed(Keyed(), X))


def test_a_generator_cannot_be_exported():
    """The error says what to use instead."""

    class Generated(nn.Module):
        def forward(self, x):
            return functional.dropout(x, 0.3, generator=torch.Generator())

    with pytest.raises(NotImplementedError, match=r"generator must be None under torch.export, got .*; pass key="):
        torch.export.export(Generated(), (X,))


@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_eval_graph_holds_no_dropout(layer, strict):
    """In eval mode a layer leaves no operator in the program, not even a copy."""
    model = nn.Sequential(nn.ReLU(), layer.module(0.4)).eval()

    program = torch.export.export(model, (torch.randn(layer.example_shape),), strict=strict).run_decompositions()

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


def test_a_saved_program_runs_where_dropkit_is_not(tmp_path):
    """A process without dropkit loads a training graph, and runs it with torch's own dropout."""
    model = network()
    torch.export.save(torch.export.export(model, (X,)), tmp_path / "model.pt2")
    torchs = network(nn.Dropout)
    torchs.load_state_dict(model.state_dict())
    torch.save((X, from_one_seed(torchs, X)), tmp_path / "expected.pt")
    script = (
        "import sys, torch\n"
        "sys.modules['dropkit'] = None\n"
        "input, expected = torch.load(sys.argv[1] + '/expected.pt')\n"
        "model = torch.export.load(sys.argv[1] + '/model.pt2').module()\n"
        "torch.manual_seed(3)\n"
        "print(torch.equal(model(input), expected))"
    )

    run = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)

    assert run.stdout == "True\n"


@pytest.mark.slow
def test_aotinductor_packages_need_no_dropkit(tmp_path):
    """A package of a training graph, made under install, runs without dropkit, with a new mask at each run."""
    with torch.no_grad(), dropkit.installed():
        program = torch.export.export(network(), (X,))
        path = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "model.pt2"))

    with zipfile.ZipFile(path) as package:
        assert not any(b"dropkit" in package.read(name) for name in package.namelist() if name.endswith(".cpp"))
    run = torch._inductor.aoti_load_package(path)
    assert not torch.equal(run(X), run(X))
    assert (run(X) == 0).any()


@pytest.mark.slow
def test_aotinductor_keeps_a_given_key(tmp_path):
    """A package with a key, or with nothing dropped, equals eager mode to the bit."""

    class Keyed(nn.Module):
        def forward(self, x, key):
            return functional.dropout(x, 0.3, key=key)

    inputs = X, torch.tensor(7)
    with torch.no_grad():
        program = torch.export.export(Keyed(), inputs)
    path = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "model.pt2"))

    assert torch.equal(torch._inductor.aoti_load_package(path)(*inputs), Keyed()(*inputs))


def test_a_draw_takes_none_for_no_dimensions():
    """AOTInductor's C++ passes None for an empty list of sizes."""
    torch.manual_seed(3)
    expected = torch.ops.dropkit.draw_v1((), device=torch.device("cpu"))

    torch.manual_seed(3)
    assert torch.equal(draw_key._run(None, device=torch.device("cpu")), expected)


def test_an_onnx_model_holds_no_dropout():
    """In eval mode the layers leave nothing in the ONNX graph."""
    pytest.importorskip("onnxscript")
    layers = [layer.module(0.4) for layer in LAYERS if layer.name != "Dropout1d"]  # which takes no four dimensions
    model = nn.Sequential(nn.ReLU(), *layers, nn.Tanh()).eval()

    program = torch.onnx.export(model, (torch.randn(2, 3, 4, 4),), dynamo=True, verbose=False)

    assert [node.op_type for node in program.model_proto.graph.node] == ["Relu", "Tanh"]


@pytest.mark.parametrize("install", [False, True], ids=["nn", "installed"])
def test_an_onnx_model_in_training_mode_drops_by_onnx(install):
    """dropkit's layers, and torch's under install, become ONNX's own operator."""
    pytest.importorskip("onnxscript")

    with dropkit.installed() if install else nullcontext():
        model = network(nn.Dropout if install else Dropout)
        program = torch.onnx.export(model, (X,), dynamo=True, verbose=False)

    names = [node.op_type for node in program.model_proto.graph.node]
    assert names == ["Gemm", "Relu", "Dropout", "Gemm", "Dropout"]


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")  # all of this exporter is deprecated
@pytest.mark.parametrize("training", [False, True])
def test_the_older_onnx_exporter(training, tmp_path):
    """The program has no dropout in eval mode and ONNX's own in training mode."""
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
