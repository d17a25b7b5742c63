"""What one process states about its slice: the mask is that slice of the mask of the whole, however dropout runs."""

import copy
import pickle
import threading

import pytest
import torch
import torch.nn.functional as F
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint

import dropkit
from dropkit import functional, nn, shard
from dropkit.shard import Slice, holding

KEY = 7


def example(layer):
    """An input of six samples, and slices of it along its first, second and last dimension, and along two of them."""
    x = torch.randn(6, 4, *layer.example_shape[2:]).add_(3)
    last = x.shape[-1]
    return x, {
        "first dimension": ((Slice(0, 2, 6),), (slice(2, 5),)),
        "second dimension": ((Slice(1, 1, 4),), (slice(None), slice(1, 3))),
        "last dimension": ((Slice(-1, last - 1, last),), (..., slice(last - 1, last))),
        "two dimensions": ((Slice(1, 3, 4), Slice(0, 0, 6)), (slice(0, 4), slice(3, 4))),
        "nothing": ((Slice(0, 3, 6),), (slice(3, 3),)),
    }


SPLITS = ["first dimension", "second dimension", "last dimension", "two dimensions", "nothing"]


def by_function(layer, x, **key):
    return layer.function(x, 0.5, **key)


def by_module(layer, x, **key):
    return layer.module(0.5)(x, **key)


def in_place(layer, x, **key):
    return layer.function(x.clone(), 0.5, inplace=True, **key)


def with_gradient(layer, x, **key):
    x = x.clone().requires_grad_()
    output = layer.function(x, 0.5, **key)
    output.backward(torch.ones_like(output))
    return torch.stack([output.detach(), x.grad])


def under_a_mode(layer, x, **key):
    class Mode(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            return func(*args, **(kwargs or {}))

    with Mode():
        return layer.function(x, 0.5, **key)


def by_torch_func(layer, x, **key):
    output, gradient = torch.func.vjp(lambda x: layer.function(x, 0.5, **key), x)
    return torch.stack([output, gradient(torch.ones_like(output))[0]])


WAYS = [by_function, by_module, in_place, with_gradient, under_a_mode, by_torch_func]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_the_mask_of_a_slice_is_the_slice_of_the_mask(layer, way):
    """Equal keys, and equal seeds, give the slice of what the whole gives, bit for bit."""
    x, splits = example(layer)
    for key in ({"key": KEY}, {}):
        torch.manual_seed(0)
        expected = way(layer, x, **key)
        state = torch.get_rng_state()
        for parts, where in splits.values():
            torch.manual_seed(0)

            with holding(*parts):
                output = way(layer, x[where], **key)

            of_expected = where if expected.dim() == x.dim() else (slice(None), *where)
            assert torch.equal(output, expected[of_expected])
            assert torch.equal(torch.get_rng_state(), state), "an empty slice draws its key, too"


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
@pytest.mark.parametrize("noise_shape", [None, (None, 1), (1, None), (3, 1), (1, 1)], ids=str)
def test_shared_mask_elements_and_complex_numbers_follow(dtype, noise_shape):
    """`noise_shape` names sizes of the part; a negative dimension counts from the last of the caller's tensor."""
    x = torch.ones(6, 4, dtype=dtype)
    of_whole = (6, 1) if noise_shape == (3, 1) else noise_shape
    expected = functional.dropout(x, noise_shape=of_whole, key=KEY)

    with holding(Slice(-2, 3, 6), Slice(-1, 1, 4)):
        output = functional.dropout(x[3:, 1:3], noise_shape=noise_shape, key=KEY)

    assert torch.equal(output, expected[3:, 1:3])


@pytest.mark.parametrize("randomness", ["same", "different"])
def test_dimensions_under_vmap_are_those_of_the_function(randomness):
    """Each slice along the mapped dimension is the slice of its own mask."""
    x = torch.ones(3, 6, 4)
    torch.manual_seed(0)
    expected = torch.vmap(functional.dropout, randomness=randomness)(x)
    torch.manual_seed(0)

    with holding(Slice(0, 2, 6)):
        output = torch.vmap(functional.dropout, randomness=randomness)(x[:, 2:5])

    assert torch.equal(output, expected[:, 2:5])


def test_slices_lie_in_the_tensor_that_outer_blocks_describe():
    """A slice of a slice is the slice at the sum of the starts."""
    x = torch.ones(12, 5)
    expected = functional.dropout(x, key=KEY)

    with holding(Slice(0, 4, 12)), holding(Slice(0, 3, 7), Slice(1, 2, 5)):
        output = functional.dropout(x[7:9, 2:4], key=KEY)

    assert torch.equal(output, expected[7:9, 2:4])


def test_whole_ends_what_blocks_around_it_state():
    """Dropout of what is not split uses the mask of one process, and the block goes on afterwards."""
    x = torch.ones(6, 5)
    expected = functional.dropout(x, key=KEY)

    with holding(Slice(0, 4, 6)):
        with shard.whole():
            assert torch.equal(functional.dropout(x, key=KEY), expected)
        assert torch.equal(functional.dropout(x[4:], key=KEY), expected[4:])


@pytest.mark.parametrize("shared", ["dropout", "dropout1d", "dropout2d", "alpha_dropout", "feature_alpha_dropout"])
def test_torchs_own_functions_follow_under_install(shared):
    """F.dropout and its family use the slice under installed()."""
    x = torch.randn(6, 4, 5).add_(3) if shared != "dropout2d" else torch.ones(6, 4, 5, 2)
    with dropkit.installed():
        torch.manual_seed(0)
        expected = getattr(F, shared)(x, 0.5, True)
        torch.manual_seed(0)
        with holding(Slice(0, 2, 6)):
            output = getattr(F, shared)(x[2:5], 0.5, True)

    assert torch.equal(output, expected[2:5])


def test_native_dropout_returns_the_mask_that_it_used():
    """torch.native_dropout's second output follows the slice, too."""
    x = torch.ones(700, 400)
    with dropkit.installed():
        torch.manual_seed(0)
        expected, _ = torch.native_dropout(x, 0.5, True)
        for part, where in ((Slice(1, 2, 400), (slice(None), slice(2, 9))), (Slice(0, 9, 700), (slice(9, 600),))):
            torch.manual_seed(0)
            with holding(part):
                output, kept = torch.native_dropout(x[where], 0.5, True)

            assert torch.equal(output, expected[where])
            assert torch.equal(output != 0, kept)


@pytest.mark.parametrize("function", ["dropout_add", "bias_act_dropout_add", "dropout_add_norm"])
def test_fused_functions_follow(function):
    """Each fused function gives the slice of what it gives for the whole."""
    x, residual = torch.rand(6, 8).add_(1), torch.rand(6, 8)

    def run(rows):
        if function == "dropout_add":
            return functional.dropout_add(x[rows], residual[rows], key=KEY)
        if function == "bias_act_dropout_add":
            return functional.bias_act_dropout_add(x[rows], None, residual[rows], key=KEY)
        return functional.dropout_add_norm(x[rows], residual[rows], key=KEY)[1]

    expected = run(slice(None))
    with holding(Slice(0, 2, 6)):
        output = run(slice(2, 4))

    assert torch.equal(output, expected[2:4])


@pytest.mark.parametrize("use_reentrant", [False, True], ids=["non-reentrant", "reentrant"])
@pytest.mark.parametrize("key", [KEY, None], ids=["given key", "drawn key"])
@pytest.mark.parametrize("where", ["block around", "block inside", "another block at backward", "another thread"])
def test_a_region_is_recomputed_under_the_slices_of_its_first_run(use_reentrant, key, where):
    """Backward may run after the block, in another one or in another thread: the mask is that of forward."""

    def region(x):
        if where != "block inside":
            return functional.dropout(x.exp(), key=key).sin()
        with holding(Slice(0, 1, 30)):
            first = functional.dropout(x.exp(), key=key)
        return functional.dropout(first, key=key).sin()

    def backward():
        if where == "another block at backward":
            with holding(Slice(0, 9, 90)):
                return output.sum().backward()
        if where == "another thread":
            thread = threading.Thread(target=output.sum().backward)
            thread.start()
            return thread.join()
        return output.sum().backward()

    x = torch.zeros(20, 5, requires_grad=True)
    with holding(Slice(0, 4, 40)):
        output = checkpoint(region, x, use_reentrant=use_reentrant)

    backward()

    assert torch.equal(x.grad == 0, output == 0)


def test_a_compiled_call_follows_each_block():
    """Compiled code is that of its slice: it is compiled again for another one, and not reused after the block."""
    x, key = torch.ones(6, 8), torch.tensor(KEY)
    expected = functional.dropout(x, key=key)
    compiled = torch.compile(lambda x: functional.dropout(x, key=key), backend="aot_eager", fullgraph=True)

    assert torch.equal(compiled(x), expected)
    for rows in (slice(0, 2), slice(2, 4), slice(4, 6)):
        with holding(Slice(0, rows.start, 6)):
            assert torch.equal(compiled(x[rows]), expected[rows])
    assert torch.equal(compiled(x), expected)


def test_a_block_inside_of_compiled_code_is_traced():
    """`holding` and a split layer work under fullgraph=True, and end with their code."""
    layer = shard.split(nn.Dropout(), Slice(1, 3, 8))
    x = torch.ones(6, 8)

    @torch.compile(backend="aot_eager", fullgraph=True)
    def step(x):
        with holding(Slice(0, 2, 6)):
            return functional.dropout(x[2:5]), layer(x[2:5, 3:5])

    torch.manual_seed(0)
    first, second = functional.dropout(x), functional.dropout(x)
    torch.manual_seed(0)
    output = step(x)

    assert torch.equal(output[0], first[2:5])
    assert torch.equal(output[1], second[2:5, 3:5])
    assert torch.equal(functional.dropout(x, key=KEY), functional.dropout(x.clone(), key=KEY))


def test_compiled_code_takes_any_slice_as_it_comes():
    """Many micro-batches, and batches of many sizes, do not compile a graph for each, also with gradients."""
    graphs = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(functional.dropout, backend=graphs, fullgraph=True)
    for total in range(12, 24):
        x = torch.ones(total, 8)
        torch.manual_seed(0)
        expected = functional.dropout(x)
        torch.manual_seed(0)
        for rows in shard.micro_batches(total, 3):
            part = x[rows].clone().requires_grad_()
            output = compiled(part)
            output.sum().backward()
            assert torch.equal(output, expected[rows])
            assert torch.equal(part.grad, output)

    assert graphs.frame_count <= 3, "one for the first size, one for all others, and one for a single sample"


def test_blocks_count_for_their_thread_alone():
    """Another thread, meanwhile, holds whole tensors."""
    x = torch.ones(6, 8)
    outputs = []

    with holding(Slice(0, 6, 12)):
        thread = threading.Thread(target=lambda: outputs.append(functional.dropout(x, key=KEY)))
        thread.start()
        thread.join()

    assert torch.equal(outputs[0], functional.dropout(x, key=KEY))


def test_a_block_ends_with_an_error():
    """After an exception nothing is stated any more."""
    layer = shard.split(nn.Dropout(), Slice(0, 3, 8))
    with pytest.raises(ZeroDivisionError), holding(Slice(0, 2, 6)):
        1 / 0  # noqa: B018
    with pytest.raises(ValueError, match="start"):
        layer(torch.ones(9, 2))

    assert functional.dropout(torch.ones(4), key=KEY).shape == (4,)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((0, -1, 3), "start must be at least 0, got -1"),
        ((0, 4, 3), "total must be at least start, 4, got 3"),
        ((0, 0.5, 3), "start must be an integer, got 0.5"),
        ((None, 0, 3), "dim must be an integer, got None"),
        ((0, 0, True), "total must be an integer, got True"),
    ],
)
def test_a_slice_is_checked(arguments, error):
    """A slice that no tensor can be is refused where it is made."""
    with pytest.raises(ValueError, match=error):
        Slice(*arguments)


@pytest.mark.parametrize(
    ("part", "error", "text"),
    [
        (Slice(2, 0, 3), IndexError, r"dim must be a dimension of the input, of shape \(4, 3\), got 2.*whole"),
        (Slice(-3, 0, 3), IndexError, "got -3"),
        (Slice(0, 5, 8), ValueError, r"start \+ size must be at most total, 8, got 5 \+ 4 along dimension 0"),
    ],
)
def test_an_input_that_does_not_fit_is_refused(part, error, text):
    """The error names the shape, and no key is drawn."""
    state = torch.get_rng_state()

    with pytest.raises(error, match=text), holding(part):
        functional.dropout(torch.ones(4, 3))

    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "call",
    [
        lambda: functional.dropout(torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)),
        lambda: functional.dropout(torch.ones(3, dtype=torch.int32)),
        lambda: F.alpha_dropout(torch.ones(3, dtype=torch.complex64), training=True),
        lambda: torch.native_dropout(torch.ones(3, dtype=torch.complex64), 0.5, True),
        lambda: torch.jit.trace(functional.dropout, torch.ones(3), check_trace=False),
        lambda: torch.export.export(nn.Dropout(), (torch.ones(3),)),
    ],
    ids=["nested", "integers", "complex under install", "complex with its mask", "torch.jit.trace", "torch.export"],
)
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_follow_is_refused(call):
    """Nothing drops by a mask that is not that of the whole."""
    refused = pytest.raises(Exception, match=r"dropkit.shard: .* masks do not follow")
    with refused, holding(Slice(0, 0, 9)), dropkit.installed():
        call()


def through_pickle(layer):
    return pickle.loads(pickle.dumps(layer))


@pytest.mark.parametrize("copied", [copy.deepcopy, through_pickle], ids=["deepcopy", "pickle"])
def test_a_copy_of_a_split_layer_is_split(copied):
    """Its own `forward` states the slice; `unsplit` ends that of one copy alone."""
    x = torch.ones(3, 8)
    expected = functional.dropout(x, key=KEY)
    layer = shard.split(nn.Dropout(), Slice(1, 2, 8))

    other = copied(layer)
    shard.unsplit(layer)

    assert torch.equal(layer(x, key=KEY), expected)
    assert torch.equal(other(x[:, 2:4], key=KEY), expected[:, 2:4])
    assert list(other.state_dict()) == []
    assert torch.equal(shard.unsplit(other)(x, key=KEY), expected)


def test_a_layer_is_split_once():
    """A second statement about one layer is refused."""
    layer = shard.split(nn.Dropout(), Slice(1, 2, 8))

    with pytest.raises(RuntimeError, match="split already"):
        shard.split(layer, Slice(1, 2, 8))


MICRO = [1, 2, 4, 5, 9]


@pytest.mark.parametrize("size", MICRO)
def test_micro_batches_use_the_masks_of_the_whole_batch(layer, size):
    """Their outputs, put together, are those of one pass, and the generator goes on as after one pass."""
    x, _ = example(layer)
    torch.manual_seed(0)
    expected = [layer.function(x, 0.5), layer.function(x, 0.25)]
    state = torch.get_rng_state()

    torch.manual_seed(0)
    outputs = [(layer.function(x[rows], 0.5), layer.function(x[rows], 0.25)) for rows in shard.micro_batches(6, size)]

    for whole, parts in zip(expected, zip(*outputs, strict=True), strict=True):
        assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(torch.get_rng_state(), state)


def test_leaving_micro_batches_early_leaves_no_slice():
    """After `break` or an error, dropout is of whole tensors."""
    x = torch.ones(6, 3)
    for rows in shard.micro_batches(6, 2):
        functional.dropout(x[rows])
        break
    with pytest.raises(ValueError, match=r"the batch size, 2, along dimension 0, got shape \(6, 3\).*dim=1.*flattened"):
        _ = [functional.dropout(x) for _ in shard.micro_batches(6, 2)]

    assert torch.equal(functional.dropout(x, key=KEY), functional.dropout(x.clone(), key=KEY))
    assert not dropkit.ops.slices.state.parts


def test_a_generator_that_micro_batches_do_not_restart_is_refused():
    """Its keys would differ between micro-batches; a given key does not."""
    with pytest.raises(NotImplementedError, match=r"generator must be None in micro_batches.*pass key="):
        _ = [functional.dropout(torch.ones(2), generator=torch.Generator()) for _ in shard.micro_batches(2, 2)]


def test_micro_batches_of_nothing_are_one_empty_part():
    """A rank without samples still runs its pass, so that it draws the keys that the others draw."""
    assert list(shard.micro_batches(0, 4)) == [slice(0, 0)]


@pytest.mark.parametrize(("arguments", "text"), [((-1, 2), "total"), ((3, 0), "size"), ((3, 1.5), "size")])
def test_micro_batches_check_their_arguments(arguments, text):
    """Errors are raised at the call."""
    with pytest.raises(ValueError, match=f"{text} must be an integer"):
        shard.micro_batches(*arguments)


def test_ranks_are_not_asked_for_without_a_group():
    """The error says what to call."""
    for call in (
        lambda: shard.data_parallel().__enter__(),
        shard.different_masks,
        lambda: shard.split(nn.Dropout()),
    ):
        with pytest.raises(RuntimeError, match=r"init_process_group\(\) first"):
            call()
