"""torch.jit and torch.fx: a scripted or traced program holds torch's dropout, an fx graph holds dropkit's."""

import copy
import io
import pickle

import pytest
import torch
from helpers.laws import kept_elements, mask_of
from torch import Tensor, nn

import dropkit
from dropkit import functional as ours
from dropkit.nn import Dropout, DropPath, drop_path

pytestmark = pytest.mark.filterwarnings(
    "ignore:`torch.jit:DeprecationWarning",  # torch.jit as a whole; torch keeps it
)

SCRIPTED = "torch.jit.script (puts|compiles) torch"
TRACED = "torch.jit.trace records torch's own dropout"


class Calls(nn.Module):
    """A functional dropout that follows the training flag."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, input: Tensor) -> Tensor:
        return self.function(input, 0.5, training=self.training)


class Keyed(nn.Module):
    def forward(self, input: Tensor) -> Tensor:
        return ours.dropout(input, 0.5, key=7)


class Doubled(Dropout):
    """A subclass with a forward of its own, which TorchScript can read."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * input


def networks(layer):
    """The layer's module and its function in a network each."""
    return [nn.Sequential(nn.Identity(), layer.module(0.5)), Calls(layer.function)]


def torch_networks(layer):
    """What torch has in their place."""
    torchs = layer.counterpart
    return [nn.Sequential(nn.Identity(), torchs.module(0.5)), Calls(torchs.function)]


def saved_and_loaded(program):
    file = io.BytesIO()
    torch.jit.save(program, file)
    file.seek(0)
    return torch.jit.load(file)


def from_one_seed(program, input):
    torch.manual_seed(3)
    return program(input)


def test_a_scripted_network_is_torchs(shared_layer):
    """A scripted network drops as torch's does from the same seed, and follows train() and eval()."""
    x = torch.ones(shared_layer.example_shape)

    for network, torchs in zip(networks(shared_layer), torch_networks(shared_layer), strict=True):
        with pytest.warns(UserWarning, match=SCRIPTED):
            scripted = saved_and_loaded(torch.jit.script(network))

        assert torch.equal(from_one_seed(scripted, x), from_one_seed(torchs, x))
        assert torch.equal(scripted.eval()(x), x)


@pytest.mark.parametrize("form", [0, 1], ids=["module", "function"])
def test_a_network_of_a_layer_that_torch_lacks_is_not_scripted(form):
    """The error names the layer and says what to do; the ways that it names work."""
    network = networks(drop_path.LAYER)[form]

    with pytest.raises(
        Exception, match=r"cannot compile (DropPath|drop_path), which torch does not have: use torch.jit"
    ):
        torch.jit.script(network)

    network = nn.Sequential(nn.Identity(), DropPath(0.5)).eval()
    network[1] = nn.Identity()
    assert torch.equal(torch.jit.script(network)(torch.ones(3)), torch.ones(3))


def longer_example(layer):
    """An input of other sizes than the layer's example."""
    samples, channels, *rest = layer.example_shape
    return torch.ones(3 * samples, 2 * channels, *rest)


def test_a_traced_network_is_torchs(shared_layer):
    """A trace in training mode drops as torch's, anew at each run, at sizes that it was not traced with too."""
    x, longer = torch.ones(shared_layer.example_shape), longer_example(shared_layer)

    for network, torchs in zip(networks(shared_layer), torch_networks(shared_layer), strict=True):
        with pytest.warns(UserWarning, match=TRACED):
            traced = saved_and_loaded(torch.jit.trace(network, (x,), check_trace=False))

        assert torch.equal(from_one_seed(traced, longer), from_one_seed(torchs, longer))
        assert not torch.equal(traced(longer), traced(longer))


@pytest.mark.keeps_or_drops
def test_a_traced_network_has_the_layers_mask_shape(layer):
    """A trace holds torch's operators alone, drops anew at each run, and at other sizes too, by the same mask shape."""
    for network in networks(layer):
        with pytest.warns(UserWarning, match=TRACED):
            traced = torch.jit.trace(network, (torch.ones(layer.example_shape),), check_trace=False)

        kept = kept_elements(layer, traced(longer_example(layer)), 0.5)

        assert "dropkit::" not in str(traced.inlined_graph)
        assert torch.equal(kept, mask_of(layer, kept).expand_as(kept))
        assert not torch.equal(kept, kept_elements(layer, traced(longer_example(layer)), 0.5))


def test_a_trace_in_eval_mode_drops_nothing(layer):
    """A trace in eval mode has no dropout, nor a warning."""
    x = torch.ones(layer.example_shape)

    for network in networks(layer):
        traced = torch.jit.trace(network.eval(), (x,))

        assert "aten::" not in str(traced.inlined_graph)
        assert torch.equal(traced(x), x)


def test_a_trace_in_training_mode_has_one_warning(recwarn):
    """Nothing that the layers look at makes torch warn that a trace may not be general."""
    torch.jit.trace(Dropout(0.5), (torch.ones(2, 3),), check_trace=False)

    assert not [warning for warning in recwarn if issubclass(warning.category, torch.jit.TracerWarning)]


@pytest.mark.parametrize("name", ["key", "generator"])
def test_a_trace_refuses_a_key(name):
    """A mask that torch cannot make is refused, and the error says what to do."""
    given = {"key": 7, "generator": torch.Generator()}[name]

    with pytest.raises(NotImplementedError, match=f"{name} must be None under torch.jit.trace, got .*torch.export"):
        torch.jit.trace(lambda x: ours.dropout(x, 0.5, **{name: given}), (torch.ones(3),))


@pytest.mark.filterwarnings(f"ignore:{SCRIPTED}")
def test_a_script_refuses_a_key():
    """The compiler names the argument that torch's function does not have."""
    with pytest.raises(RuntimeError, match="Keyword argument key unknown"):
        torch.jit.script(Keyed())


@pytest.mark.filterwarnings(f"ignore:{SCRIPTED}")
def test_a_scripted_function_is_torchs(shared_layer):
    """torch.jit.script of a function gives torch's function of that name."""
    x = torch.ones(shared_layer.example_shape)

    scripted = torch.jit.script(shared_layer.function)

    torch.manual_seed(3)
    output = scripted(x, 0.5, True)
    torch.manual_seed(3)
    assert torch.equal(output, shared_layer.counterpart.function(x, 0.5, True))


@pytest.mark.filterwarnings(f"ignore:{SCRIPTED}")
def test_a_script_takes_the_settings_of_the_module(shared_layer):
    """Training flag, rate, inplace and shared modules are those of the network that was scripted."""
    drop = shared_layer.module(0.5, inplace=True).eval()
    network = nn.Sequential(nn.Identity(), drop, nn.Identity(), drop)

    torch.jit.script(network)

    assert type(network[1]) is shared_layer.counterpart.module
    assert network[1] is network[3]
    assert (network[1].p, network[1].inplace, network[1].training) == (0.5, True, False)


@pytest.mark.filterwarnings(f"ignore:{SCRIPTED}")
def test_convert_brings_dropkit_back_after_a_script(shared_layer):
    """torch puts what it scripts into the eager model too, as the warning says; convert undoes that."""
    network = nn.Sequential(shared_layer.module(0.5))
    torch.jit.script(network)

    dropkit.convert(network)

    assert type(network[0]) is shared_layer.module


def test_a_script_of_a_copy_leaves_the_model():
    """Scripting a copy, as the warning advises, changes no module of the model."""
    network = nn.Sequential(Dropout(0.5))

    with pytest.warns(UserWarning, match=r"script copy.deepcopy\(model\)"):
        torch.jit.script(copy.deepcopy(network))

    assert type(network[0]) is Dropout


def test_a_subclass_with_its_own_forward_is_compiled_as_it_is():
    """torch's module is substituted only where the forward is dropkit's own."""
    scripted = torch.jit.script(nn.Sequential(Doubled(0.5)))

    assert torch.equal(scripted(torch.ones(3)), torch.full((3,), 2.0))


def test_fx_keeps_modules(layer):
    """A module is a module in an fx graph, and follows train() and eval() there, as torch's does."""
    x, network = torch.ones(layer.example_shape), nn.Sequential(nn.Identity(), layer.module(0.5))

    traced = torch.fx.symbolic_trace(network)

    assert [node.target for node in traced.graph.nodes if node.op == "call_module"] == ["0", "1"]
    assert torch.equal(from_one_seed(traced, x), from_one_seed(network, x))
    assert torch.equal(traced.eval()(x), x)
    assert not torch.equal(traced.train()(x), x)


def test_fx_traces_a_module_by_itself(layer):
    """A module that is the whole model becomes a call of its function."""
    x, module = torch.ones(layer.example_shape), layer.module(0.5)

    assert torch.equal(from_one_seed(torch.fx.symbolic_trace(module), x), from_one_seed(module, x))


def test_fx_passes_a_key_on():
    """The key of a call of the module is in the graph."""

    class Keyed(nn.Module):
        def __init__(self):
            super().__init__()
            self.dropout = Dropout(0.5)

        def forward(self, x, key):
            return self.dropout(x, key=key)

    network, x = Keyed(), torch.ones(64)

    assert torch.equal(torch.fx.symbolic_trace(network)(x, 7), network(x, 7))


@pytest.mark.parametrize("training", [True, False])
def test_fx_keeps_the_training_argument_of_a_function(layer, training):
    """A function is a call in the graph, with the arguments of the trace; a module with hooks, which run once, too."""
    x, hooked = torch.ones(layer.example_shape), nn.Sequential(layer.module(0.5)).train(training)
    hooked[0].register_forward_hook(lambda module, inputs, output: output * 2)

    for network in (lambda x: layer.function(x, 0.5, training), hooked):
        traced = torch.fx.symbolic_trace(network)

        assert layer.function in [node.target for node in traced.graph.nodes]
        assert torch.equal(from_one_seed(traced, x), from_one_seed(network, x))


def test_an_fx_graph_is_pickled():
    """The code that fx writes finds the function again by its name."""
    traced = torch.fx.symbolic_trace(nn.Sequential(Dropout(0.5)))

    loaded = pickle.loads(pickle.dumps(traced))

    assert torch.equal(from_one_seed(loaded, torch.ones(8)), from_one_seed(traced, torch.ones(8)))
