"""noise_shape of dropout: what it means, in every mode, and where it is refused. The laws run on two of its forms."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from helpers.compare import agree, compiled, graphs, observe
from torch import nn

import dropkit
from dropkit.functional import drop_path, dropout, dropout1d, dropout2d, dropout3d
from dropkit.nn import Dropout
from dropkit.nn.noise_shape import mask_shape

KEY = 7
X = torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(1))
SHARED = (None, 1, None)

# (shape of the input, noise_shape, the function that drops the same)
EQUAL = [
    ((4, 6), None, dropout),
    ((4, 6), (None, None), dropout),
    ((4, 6), (4, 6), dropout),
    ((4, 6), [4, None], dropout),
    ((4, 1, 6), (4, 1, 6), dropout),
    ((), (), dropout),
    ((4, 6, 3, 3), (4, 6, 1, 1), dropout2d),
    ((4, 6, 3, 3), (None, None, 1, 1), dropout2d),
    ((4, 6, 3), (4, None, 1), dropout1d),
    ((6, 3), (6, 1), dropout1d),
    ((2, 3, 2, 2, 2), (None, 3, 1, 1, 1), dropout3d),
    ((8, 3, 2), (8, 1, 1), drop_path),
    ((8,), (None,), drop_path),
]


def same_along(output, *dims):
    """Whether elements are kept or dropped together along these dimensions."""
    kept = output != 0
    return all(torch.equal(kept, kept.narrow(dim, 0, 1).expand_as(kept)) for dim in dims)


@pytest.mark.parametrize(
    ("shape", "noise_shape", "function"), EQUAL, ids=lambda value: getattr(value, "__name__", str(value))
)
@pytest.mark.parametrize("inplace", [False, True], ids=["", "inplace"])
def test_the_other_layers_are_noise_shapes(shape, noise_shape, function, inplace):
    """With the same key the bits are those of the layer that shares along the same dimensions, the gradient's too."""
    first, second = (torch.randn(shape, generator=torch.Generator().manual_seed(2)).requires_grad_() for _ in range(2))

    output = dropout(first * 1, 0.4, True, inplace, noise_shape=noise_shape, key=KEY)
    expected = function(second * 1, 0.4, True, inplace, key=KEY)
    output.sum().backward()
    expected.sum().backward()

    assert torch.equal(output, expected)
    assert torch.equal(first.grad, second.grad)


@pytest.mark.parametrize("noise_shape", [(1, None), (None,), (6,), (1, 6), [np.int64(1), np.int64(6)]], ids=str)
def test_a_shorter_shape_is_aligned_to_the_right(noise_shape):
    """Missing dimensions are shared: the mask is that of one row, in its order."""
    output = dropout(torch.ones(4, 6), 0.5, noise_shape=noise_shape, key=KEY)

    assert torch.equal(output, dropout(torch.ones(6), 0.5, key=KEY).expand(4, 6))


@pytest.mark.parametrize("noise_shape", [(), (1,), (1, 1)], ids=str)
def test_one_mask_element_may_drop_all(noise_shape):
    """Over many keys all elements together are dropped at rate p."""
    kept = torch.tensor([dropout(torch.ones(2, 3), 0.3, noise_shape=noise_shape, key=key).sum() for key in range(400)])

    assert set(kept.div(6 / 0.7).round().tolist()) == {0.0, 1.0}
    assert abs((kept == 0).double().mean() - 0.3) < 5 * (0.3 * 0.7 / 400) ** 0.5


@pytest.mark.parametrize("noise_shape", [(20, 1, 10), (None, 1, None), (20, 1, None)], ids=str)
def test_the_module_drops_as_keras_does(noise_shape):
    """Keras' own test: the same features are dropped at all time steps, and others in each sample."""
    output = Dropout(0.5, noise_shape=noise_shape)(torch.ones(20, 5, 10))

    assert same_along(output, 1)
    assert not same_along(output, 0)
    assert not same_along(output, 2)


@pytest.mark.parametrize(
    ("noise_shape", "shape", "expected"),
    [
        ((None, 1), (4, 6), (4, 1)),
        ((4, 1), (40, 6), (40, 1)),
        ((1, 6), (40, 60), (1, 60)),
        ((1,), (4, 1), (1, 1)),
        ((6,), (2, 4, 60), (1, 1, 60)),
    ],
)
def test_a_size_stands_for_that_of_the_input(noise_shape, shape, expected):
    """The mask of a larger input, of which this one is a part, has the larger sizes."""
    assert mask_shape(noise_shape, shape) == expected


@pytest.mark.parametrize(
    "noise_shape", [-1, 6, "ab", (-1, 1), (True, 1), (1.0, 1), ("1", 1), {1: 6}, torch.ones(2), (torch.tensor(1), 1)]
)
@pytest.mark.parametrize("training", [True, False], ids=["", "eval"])
def test_what_is_no_shape_is_refused(noise_shape, training):
    """By the function, in both modes, and by the constructor, which also refuses 0."""
    wanted = "noise_shape must be a tuple of sizes, each 1, that of the input, or None, got "

    with pytest.raises(ValueError, match=wanted):
        dropout(torch.ones(4, 6), 0.5, training, noise_shape=noise_shape)
    for given in (noise_shape, (0, 1)):
        with pytest.raises(ValueError, match=wanted):
            Dropout(0.5, noise_shape=given)


@pytest.mark.parametrize("noise_shape", [(3, 1), (4, 5), (0, 1), (6, 4), (4,), (1, 4, 6), (1, 1, 1)], ids=str)
def test_a_shape_that_does_not_broadcast_is_refused(noise_shape):
    """The error shows both shapes, nothing is drawn, and the input is as it was."""
    x, state = torch.ones(4, 6), torch.get_rng_state()

    with pytest.raises(ValueError, match=r"noise_shape must be a shape that broadcasts to the input's, \(4, 6\), got"):
        dropout(x, 0.5, True, True, noise_shape=noise_shape)

    assert torch.equal(x, torch.ones(4, 6))
    assert torch.equal(torch.get_rng_state(), state)


def test_evaluation_takes_other_batch_sizes():
    """A noise_shape with the batch size of the training does not bind the evaluation."""
    module, x = Dropout(0.5, noise_shape=(8, 1)).eval(), torch.ones(3, 6)

    assert module(x) is x


def test_an_empty_input_comes_back():
    """As from every dropout."""
    x = torch.ones(0, 3)

    assert dropout(x, 0.5, noise_shape=x.shape) is x


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype")
@pytest.mark.parametrize("layout", [torch.jagged, torch.strided], ids=str)
def test_nested_inputs_are_refused(layout):
    """Their sizes differ, so no shape of sizes fits them."""
    x = torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(4, 3)], layout=layout)

    with pytest.raises(NotImplementedError, match="noise_shape must be None where the input is nested"):
        dropout(x, 0.5, noise_shape=SHARED)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_complex_numbers(dtype):
    """One mask element for each complex number, shared as for real ones."""
    output = dropout(torch.ones(4, 6, 5, dtype=dtype), 0.5, noise_shape=SHARED, key=KEY)

    assert torch.equal(output, dropout(torch.ones(4, 6, 5), 0.5, noise_shape=SHARED, key=KEY).to(dtype))


def test_the_module_keeps_its_option():
    """It shows in the text, needs no state, and survives copies, pickles and graphs of torch.fx."""
    module = Dropout(0.5, noise_shape=[None, 1, None])

    assert repr(module) == "Dropout(p=0.5, inplace=False, noise_shape=(None, 1, None))"
    assert not module.state_dict()
    traced = torch.fx.symbolic_trace(nn.Sequential(module))
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), traced, torch.fx.symbolic_trace(module)):
        torch.manual_seed(3)
        output = twin(X)
        torch.manual_seed(3)
        assert torch.equal(output, module(X))
        assert same_along(output, 1)


def test_a_converted_module_has_none():
    """`convert` changes the class of torch's module, which has no such attribute."""
    model = nn.Sequential(nn.Dropout(0.5))
    dropkit.convert(model)

    assert type(model[0]) is Dropout
    assert model[0].noise_shape is None


def test_sizes_may_be_those_of_a_traced_input():
    """In a graph of torch.fx they stand for sizes that are not known yet."""

    class Model(nn.Module):
        def forward(self, x):
            return dropout(x, 0.5, noise_shape=(x.shape[0], 1, x.size(2)), key=KEY)

    traced = torch.fx.symbolic_trace(Model())

    for x in (X, torch.cat([X, X])):
        assert torch.equal(traced(x), dropout(x, 0.5, noise_shape=SHARED, key=KEY))


def test_subclasses_see_the_option():
    """`__torch_function__` gets the option as it came, and so does the call that it makes."""
    seen = []

    class Mode(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            seen.append((func, kwargs))
            return func(*args, **(kwargs or {}))

    with Mode():
        output = dropout(X, 0.5, noise_shape=[None, 1, None], key=KEY)

    assert (seen[0][0], seen[0][1]["noise_shape"]) == (dropout, [None, 1, None])
    assert torch.equal(output, dropout(X, 0.5, noise_shape=SHARED, key=KEY))


def test_one_graph_serves_all_batch_sizes():
    """Compiled with dynamic sizes, also where noise_shape is made of them."""

    def drop(x, key):
        return dropout(x, 0.5, noise_shape=(x.shape[0], 1, None)), dropout(x, 0.5, noise_shape=(1, None), key=key)

    batches = [torch.randn(size, 6, 5, requires_grad=True) for size in (4, 7, 9)]

    fast = compiled(drop, dynamic=True)
    assert all(
        agree(observe(fast, batch, torch.tensor(KEY)), observe(drop, batch, torch.tensor(KEY))) for batch in batches
    )
    assert graphs(lambda x: Dropout(0.5, noise_shape=SHARED)(x), [(batches[0].detach(),)] * 2) == 1


@pytest.mark.parametrize("randomness", ["same", "different"])
def test_under_vmap_the_shape_is_that_of_a_slice(randomness):
    """Keys may differ between slices; without keys `randomness` decides."""
    batch, keys = torch.stack([X, -X]), dropkit.random.split(KEY)
    expected = [dropout(x, 0.5, noise_shape=SHARED, key=key) for x, key in zip(batch, keys, strict=True)]

    keyed = torch.vmap(lambda x, key: dropout(x, 0.5, noise_shape=SHARED, key=key))(batch, keys)
    drawn = torch.vmap(Dropout(0.5, noise_shape=SHARED), randomness=randomness)(batch)

    assert torch.equal(keyed, torch.stack(expected))
    assert same_along(drawn, 2)
    assert same_along(drawn, 0) == (randomness == "same")


@pytest.mark.parametrize("strict", [False, True], ids=["", "strict"])
def test_an_exported_program_holds_torchs_operators(strict):
    """It works at other batch sizes, and has the masks of eager mode under install; with a key it has dropkit's."""

    class Model(nn.Module):
        def forward(self, x):
            return dropout(x, 0.5, noise_shape=(x.shape[0], 1, None))

    class Keyed(nn.Module):
        def forward(self, x, key):
            return dropout(x, 0.5, noise_shape=(x.shape[0], 1, None), key=key)

    batch = {0: torch.export.Dim("batch", min=2)}
    program = torch.export.export(Model(), (X,), dynamic_shapes={"x": batch}, strict=strict)
    keyed = torch.export.export(Keyed(), (X, torch.tensor(3)), dynamic_shapes={"x": batch, "key": None}, strict=strict)

    assert not [node for node in program.graph.nodes if "dropkit" in str(node.target)]
    for x in (X, torch.cat([X, X])):
        torch.manual_seed(3)
        expected = dropout(x, 0.5, noise_shape=SHARED)
        torch.manual_seed(3)
        with dropkit.installed():
            assert torch.equal(program.module()(x), expected)
        assert torch.equal(keyed.module()(x, torch.tensor(KEY)), dropout(x, 0.5, noise_shape=SHARED, key=KEY))


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_traced_program_shares_at_other_sizes():
    """torch.jit.trace records torch's dropout of the mask's shape."""
    with pytest.warns(UserWarning, match="torch.jit.trace records torch's own dropout"):
        program = torch.jit.trace(Dropout(0.5, noise_shape=SHARED), (X,), check_trace=False)

    output = program(torch.randn(9, 6, 5))

    assert same_along(output, 1)
    assert not same_along(output, 0)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_scripted_program_is_refused():
    """TorchScript would compile torch's dropout, which drops single elements."""
    with pytest.raises(NotImplementedError, match="cannot compile Dropout with noise_shape, which torch does not have"):
        torch.jit.script(nn.Sequential(Dropout(0.5, noise_shape=SHARED)))


@pytest.mark.parametrize("noise_shape", [SHARED, (4, 1, 5)], ids=str)
def test_monte_carlo_shares_too(noise_shape):
    """mc.predict and mc.sampling drop with the shape, whatever the batch size; masks then follow the inputs."""
    model = nn.Sequential(nn.Linear(5, 5), Dropout(0.5, noise_shape=noise_shape)).eval()

    whole, parts = (
        dropkit.mc.predict(model, X, 20, "regression", seed=0, batch_size=size, keep_samples=True).samples
        for size in (4, 2)
    )
    with torch.no_grad(), dropkit.mc.sampling():
        sampled = model(X)

    assert torch.equal(whole, parts)
    assert same_along(whole, 2)
    assert same_along(sampled, 1)
    assert (sampled == 0).any()


@pytest.mark.parametrize(
    ("noise_shape", "mask", "granularity"),
    [(SHARED, (4, 1, 5), "position"), ((None, None, 1), (4, 6, 1), "channel"), ((1,), (1, 1, 1), "all at once")],
)
def test_an_audit_shows_what_is_shared(noise_shape, mask, granularity):
    """The mask's shape, and its granularity in words."""
    model = nn.Sequential(nn.Linear(5, 5), Dropout(0.5, noise_shape=noise_shape), nn.Linear(5, 2))

    report = dropkit.audit(model, X)

    (site,) = report.sites
    assert next(visit.mask_shape for visit in site.visits if visit.is_active) == mask
    assert granularity in report.table()
