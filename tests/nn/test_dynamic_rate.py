"""A module whose rate is dynamic: one graph for every rate, and a float for everything else."""

import copy
import pickle

import pytest
import torch
from helpers.compare import agree, compiled, observe
from torch._dynamo.testing import CompileCounterWithBackend

import dropkit
from dropkit.nn import COMPOSED, FUSED, LAYERS, Dropout
from dropkit.nn.dynamic_rate import DynamicRate

# Modules whose rate moves, and the tensors that they take.
MODULES = {layer.name: (layer.module, 1) for layer in LAYERS if layer.takes_rate} | {
    cls.__name__: (cls, 2) for cls in FUSED
}


def made(name):
    cls, inputs = MODULES[name]
    shape = next((layer.example_shape for layer in LAYERS if layer.module is cls), (8, 16))
    module = cls(p=0.5) if inputs == 1 or name == "DropoutAdd" else cls(16, p=0.5)
    return module, [torch.randn(shape, requires_grad=True) for _ in range(inputs)]


@pytest.mark.parametrize("name", MODULES)
def test_a_rate_that_moves_compiles_one_graph(name):
    """Forward and backward are those of eager mode at each rate, 0 and 1 included, in one graph without breaks."""
    module, inputs = made(name)
    module.mark_rate_dynamic()
    counter = CompileCounterWithBackend("aot_eager")
    fast = compiled(module, counter)

    largest = 0.9 if name == "GaussianDropout" else 1.0  # which needs a finite variance
    for p in (0.5, 0.1, 0.0, largest, 0.7):
        module.p = p
        assert agree(observe(fast, *inputs), observe(module, *inputs))

    assert counter.frame_count == 1


@pytest.mark.parametrize(
    "record",
    [record for record in COMPOSED if record.takes_compiler and issubclass(record.module, DynamicRate)],
    ids=lambda record: record.name,
)
def test_a_rate_that_moves_compiles_one_graph_of_a_composed_layer(record):
    """At each rate the generator is left where eager mode leaves it."""
    module, inputs = record.make(0.5), record.inputs(torch.float32)
    module.mark_rate_dynamic()
    counter = CompileCounterWithBackend("aot_eager")
    fast = compiled(module, counter)

    for p in (0.5, 0.1, 0.0, 1.0, 0.7):
        module.p = p
        states = []
        for function in (fast, module):
            torch.manual_seed(0)
            function(*inputs)
            states.append(torch.get_rng_state())
        assert torch.equal(*states)

    assert counter.frame_count == 1


def test_generated_code_reads_the_rate_at_each_call():
    """With inductor outputs, gradients and the generator's state are those of eager mode."""
    network = torch.nn.Sequential(Dropout(0.5), torch.nn.ReLU(), Dropout(0.5))
    x = torch.randn(8, 64, requires_grad=True)
    for module in (network[0], network[2]):
        module.mark_rate_dynamic()
    fast = compiled(network, "inductor")

    for p in (0.5, 0.0, 0.3, 1.0):
        network[2].p = p
        assert agree(observe(fast, x), observe(network, x))


def test_a_backward_pass_has_the_rate_of_its_forward_pass():
    """An assignment between the two changes neither the mask nor the scale of the gradient."""
    module, x = Dropout(0.5), torch.ones(8, 64, requires_grad=True)
    module.mark_rate_dynamic()

    output = compiled(module, "aot_eager")(x)
    module.p = 0.1
    (grad,) = torch.autograd.grad(output.sum(), x)

    assert torch.equal(grad, output)


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))], ids=["deepcopy", "pickle"]
)
def test_the_rate_remains_a_float(copied):
    """For attributes, texts, checkpoints and copies; a copy's rate is its own."""
    module = Dropout(0.5)
    module.mark_rate_dynamic()
    module.p = 0.25

    copy_of_it = copied(module)
    module.p = 0.125

    assert (module.p, copy_of_it.p, float(copy_of_it._rate_in_graphs)) == (0.125, 0.25, 0.25)
    assert str(module) == "Dropout(p=0.125, inplace=False)"
    assert type(module.rate) is float
    assert not module.state_dict()


def test_an_exported_program_holds_torchs_operator_at_the_rate_of_now():
    """As without a dynamic rate."""
    module = Dropout(0.5)
    module.mark_rate_dynamic()

    program = torch.export.export(module, (torch.ones(3),), strict=True)

    assert [node.target for node in program.graph.nodes if node.op == "call_function"] == [
        torch.ops.aten.dropout.default
    ]


@pytest.mark.filterwarnings("ignore:`torch.jit", "ignore:torch.jit.script")
def test_a_scripted_module_has_the_rate_of_now():
    """As without a dynamic rate."""
    module = Dropout(0.5)
    module.mark_rate_dynamic()
    module.p = 1.0

    scripted = torch.jit.script(module)

    assert torch.equal(scripted(torch.ones(8)), torch.zeros(8))


def test_audits_and_monte_carlo_see_a_dynamic_rate():
    """Both read the rate that eager mode reads."""
    model = torch.nn.Sequential(Dropout(0.5), torch.nn.Linear(64, 2))
    model[0].mark_rate_dynamic()
    model[0].p = 0.25

    audited = dropkit.audit(model, torch.ones(16, 64)).sites
    sampled = dropkit.mc.predict(model, torch.ones(2, 64), samples=2, task="regression", seed=0, keep_samples=True)

    assert [site.p for site in audited] == [0.25]
    assert not torch.equal(*sampled.samples)


def test_a_rate_out_of_range_is_refused_where_the_graph_runs():
    """With torch's error, as in eager mode."""
    module = Dropout(0.5)
    module.mark_rate_dynamic()
    fast = compiled(module, "aot_eager")
    fast(torch.ones(3))
    module.p = 1.5

    with pytest.raises(ValueError, match=r"between 0 and 1, but got 1\.5"):
        fast(torch.ones(3))


def test_every_module_with_one_rate_has_a_dynamic_one():
    """A new layer derives from the class, and passes `rate` on."""
    assert [name for name, (cls, _) in MODULES.items() if not issubclass(cls, DynamicRate)] == []
