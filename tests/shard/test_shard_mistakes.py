"""What a caller forgets or confuses is refused, or warned of, and leaves nothing behind."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
import torch
from helpers.processes import Ranks
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, distribute_tensor

import dropkit
from dropkit import functional, nn, shard
from dropkit.ops import slices

KEY = 7


@pytest.fixture(scope="module")
def groups() -> Iterator[dict[int, Ranks]]:
    """A group of processes for each number of ranks."""
    groups = {size: Ranks(size) for size in (2, 4)}
    yield groups
    for group in groups.values():
        group.stop()


def raises(error, text, run):
    """Check that each rank raises."""
    with pytest.raises(error, match=text):
        run()


def warnings_of(run):
    """The texts of the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run()
    return [str(warning.message) for warning in caught]


def groups_that_confuse_samples_and_units():
    row, column = divmod(distributed.get_rank(), 2)
    of_units = [distributed.new_group([2 * index, 2 * index + 1]) for index in range(2)]
    of_samples = [distributed.new_group([index, index + 2]) for index in range(2)]
    x = torch.ones(2, 4)
    for total in (None, 8):
        layer = shard.split(nn.Dropout(), -1, of_units[row], total=total)
        with shard.data_parallel():
            raises(RuntimeError, f"other samples, got one with ranks {2 * row}, {2 * row + 1}, which hold other units",
                   lambda layer=layer: layer(x, key=KEY))  # fmt: skip
        with shard.data_parallel(of_samples[column]):
            assert layer(x, key=KEY).shape == x.shape
    torch.manual_seed(column)
    with shard.data_parallel(of_units[row]):
        raises(RuntimeError, rf"one state on all ranks.*on rank {2 * row}; rank {2 * row + 1}:",
               lambda: functional.dropout(x))  # fmt: skip


def test_a_group_that_holds_units_is_no_group_of_samples(groups):
    """Ranks with other units of the same samples are refused in `data_parallel`; errors number ranks among all."""
    groups[4].run(groups_that_confuse_samples_and_units)


def statements_about_replicated_dtensors():
    mesh = init_device_mesh("cpu", (2,))
    copies = distribute_tensor(torch.ones(4, 3), mesh, [Replicate()])
    for block in (shard.different_masks, shard.data_parallel, lambda: shard.data_parallel(batch_size=4)):
        with block():
            raises(TypeError, "a DTensor that spans several ranks of the group",
                   lambda: functional.dropout(copies, key=KEY))  # fmt: skip
    raises(TypeError, r"a DeviceMesh: pass mesh.get_group\(\)", lambda: shard.data_parallel(mesh).__enter__())
    with shard.different_masks(distributed.new_group([distributed.get_rank()], use_local_synchronization=True)):
        assert torch.equal(
            functional.dropout(copies, key=KEY).to_local(), functional.dropout(torch.ones(4, 3), key=KEY)
        )


def test_copies_of_a_dtensor_stay_equal(groups):
    """No block gives the ranks of one DTensor masks of their own, nor at the first call."""
    groups[2].run(statements_about_replicated_dtensors)


def statements_without_effect():
    torch._dynamo.utils.counters.clear()  # as in a process that has compiled nothing
    torch.manual_seed(0)
    x = torch.ones(2, 3)

    def whole_alone():
        with shard.data_parallel(batch_size=2), shard.whole():
            functional.dropout(x)

    split = shard.split(torch.nn.Dropout())
    unused = shard.split(nn.Dropout(0.0))
    assert warnings_of(whole_alone) == []
    assert warnings_of(lambda: (unused(x), split.eval()(x), split.train())) == []
    assert [text[:34] for text in warnings_of(lambda: split(x))] == ["dropkit.shard.split had no effect:"]
    assert warnings_of(lambda: split(x)) == [], "once is enough"
    installed = shard.split(torch.nn.Dropout())
    torch.manual_seed(0)
    with dropkit.installed():
        assert warnings_of(lambda: installed(x)) == []


def test_statements_that_nothing_follows_warn(groups):
    """A split layer of torch's own dropout says once that install is missing; `whole` is followed."""
    groups[2].run(statements_without_effect)


def compiled_code_without_sizes(sizes):
    rank = distributed.get_rank()
    rows = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
    x = torch.ones(sum(sizes), sum(sizes))
    expected = functional.dropout(x, key=KEY)
    model, split = nn.Dropout(), shard.split(nn.Dropout())

    def data_parallel_inside(x):
        with shard.data_parallel():
            return model(x, key=KEY)

    compiled = [
        torch.compile(function, backend="eager")
        for function in (lambda x: model(x, key=KEY), lambda x: split(x, key=KEY), data_parallel_inside)
    ]
    with shard.data_parallel():
        assert torch.equal(compiled[0](x[rows]), expected[rows])
    assert torch.equal(compiled[1](x[:, rows]), expected[:, rows])
    assert torch.equal(compiled[2](x[rows]), expected[rows])
    torch.compiler.reset()
    whole_graph = torch.compile(lambda x: model(x, key=KEY), backend="eager", fullgraph=True)
    with shard.data_parallel():
        raises(Exception, "pass batch_size=", lambda: whole_graph(x[rows]))


def test_ranks_exchange_their_sizes_between_the_graphs_of_compiled_code(groups):
    """Without `batch_size=` or `total=` there is a graph break, which `fullgraph=True` refuses with the advice."""
    groups[2].run(compiled_code_without_sizes, (2, 3))


def blocks_in_other_orders():
    x = torch.ones(64, 64)

    def in_an_iteration():
        for _ in shard.micro_batches(4, 2):
            shard.data_parallel().__enter__()

    raises(RuntimeError, "data_parallel must be around micro_batches", in_an_iteration)
    block = shard.different_masks()
    raises(RuntimeError, "outermost block, and called once", shard.different_masks)
    with block:
        first = functional.dropout(x, key=KEY)
    with block:
        assert torch.equal(functional.dropout(x, key=KEY), first)
    assert torch.equal(functional.dropout(x, key=KEY), first) == (distributed.get_rank() == 0)
    assert not slices.state.parts


def test_blocks_in_other_orders_are_refused_or_right(groups):
    """`data_parallel` goes around micro-batches, and a block of `different_masks` may be entered again."""
    groups[2].run(blocks_in_other_orders)


def test_iterators_of_micro_batches_that_end_in_any_order_leave_no_slice():
    """As where two of them are zipped, or one is collected after a later block began."""
    first, second = shard.micro_batches(4, 2), shard.micro_batches(6, 3)
    next(first), next(second)

    first.close()
    with shard.holding(shard.Slice(0, 0, 9)):
        inside = slices.state.parts
    second.close()

    assert len(inside) == 2
    assert not slices.state.parts


def test_arguments_are_checked_where_they_are_given():
    """Not in the first dropout."""
    raises(TypeError, "dim must be an integer, got str", lambda: shard.micro_batches(4, 2, dim="0"))
    raises(TypeError, "dim must be an integer, got bool", lambda: shard.batch_dim(nn.Dropout(), True))
    raises(TypeError, "layer must be a torch.nn.Module, got int", lambda: shard.unsplit(3))


def test_generators_are_compared_on_any_default_device():
    """`torch.set_default_device` has no say in it."""
    with torch.device("meta"):
        assert shard.generators.fingerprints() == shard.generators.fingerprints()


def test_native_dropout_of_what_dropkit_cannot_drop_is_refused():
    """torch's own kernel would use the mask of one process's part."""
    refused = pytest.raises(NotImplementedError, match="masks do not follow")
    with refused, dropkit.installed(), shard.holding(shard.Slice(0, 0, 9)):
        torch.native_dropout(torch.ones(3, dtype=torch.complex64), 0.5, True)
