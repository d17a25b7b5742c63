"""Ranks together use the mask of one process, bit for bit.

Each check runs on all ranks of a group of gloo processes. A rank computes the expected result of the whole tensor for
itself, and compares its own part of it.
"""

from __future__ import annotations

import copy
import itertools
import pickle
from contextlib import nullcontext
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import distributed
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

import dropkit
from dropkit import functional, nn, random, shard
from dropkit.auditor import Auditor
from dropkit.kernels import reference
from dropkit.kernels.mask import Mask
from dropkit.kernels.params import inverted
from dropkit.nn import LAYERS
from dropkit.ops import slices

# Samples of each rank.
SPLITS = [(3, 3), (5, 1), (0, 4), (2, 2, 2), (1, 0, 4), (3, 1, 2, 1)]


def rows_of(sizes):
    """The samples of this rank."""
    start = sum(sizes[: distributed.get_rank()])
    return slice(start, start + sizes[distributed.get_rank()])


def seeded(run, *arguments):
    """The result from one seed, and the state of the generator afterwards."""
    torch.manual_seed(0)
    return run(*arguments), torch.get_rng_state()


def raises(error, text, run):
    """Check that each rank raises."""
    with pytest.raises(error, match=text):
        run()


def every_layer_drops_its_part(sizes):
    rows, total = rows_of(sizes), sum(sizes)
    for layer in LAYERS:
        x = torch.randn(total, *layer.example_shape[1:], generator=torch.Generator().manual_seed(1)) + 3
        dropout = layer.module(0.5)

        def twice(x, dropout=dropout):
            return dropout(x), dropout(x + 1)

        expected, state = seeded(twice, x)
        for batch_size in (None, sizes[distributed.get_rank()]):
            torch.manual_seed(0)
            with shard.data_parallel(batch_size=batch_size):
                output = twice(x[rows])
            assert all(torch.equal(part, whole[rows]) for part, whole in zip(output, expected, strict=True)), layer.name
            assert torch.equal(torch.get_rng_state(), state), layer.name


@pytest.mark.parametrize("sizes", SPLITS, ids=str)
def test_ranks_use_the_masks_of_one_process_with_the_whole_batch(groups, sizes):
    """Even, uneven and empty parts of the batch: masks and the generators' states are those of one process."""
    groups[len(sizes)].run(every_layer_drops_its_part, sizes)


def batches_elsewhere(sizes):
    rows, total = rows_of(sizes), sum(sizes)
    own = rows.stop - rows.start
    x = torch.ones(4, total, 5)
    expected = functional.dropout(x, key=7)
    with shard.data_parallel(dim=1):
        assert torch.equal(functional.dropout(x[:, rows], key=7), expected[:, rows])
    flat = torch.ones(total * 4, 5)
    expected = functional.dropout(flat, key=7)
    per_sample = functional.dropout(flat[:total], key=7)
    with shard.data_parallel(batch_size=own, flattened=True):
        of_rank = slice(rows.start * 4, rows.stop * 4)
        assert torch.equal(functional.dropout(flat[of_rank], key=7), expected[of_rank])
        assert torch.equal(functional.dropout(flat[rows], key=7), per_sample[rows])
    inner = shard.batch_dim(nn.Dropout(), 1)
    constant = shard.batch_dim(nn.Dropout(), None)
    expected = functional.dropout(x, key=7)
    with shard.data_parallel(batch_size=own):
        assert torch.equal(inner(x[:, rows], key=7), expected[:, rows])
        assert torch.equal(constant(x, key=7), expected)
        with shard.whole():
            assert torch.equal(functional.dropout(x, key=7), expected)
        wrong = torch.ones(own + 4, 3)
        raises(ValueError, rf"the batch size, {own}, along dimension 0.*dim=1.*flattened=True.*batch_dim.*whole",
               lambda: functional.dropout(wrong))  # fmt: skip
        raises(IndexError, "dim must be a dimension of the input", lambda: functional.dropout(torch.tensor(1.0)))


def test_the_batch_may_lie_elsewhere(groups):
    """Sequence-first and flattened inputs are right where it is stated, for a block or a layer, and refused if not."""
    groups[3].run(batches_elsewhere, (2, 1, 3))


def recurrent_layers(sizes):
    rows, total = rows_of(sizes), sum(sizes)
    torch.manual_seed(1)
    lstm = torch.nn.LSTM(5, 7, 2, bidirectional=True, dtype=torch.float64)
    layer = nn.RecurrentDropout(lstm, input_p=0.2, hidden_p=0.3, recurrent_p=0.4, output_p=0.5)
    model = nn.WeightDrop(layer, ["rnn.weight_hh_l0"], 0.5)
    x = torch.randn(4, total, 5, dtype=torch.float64)
    (expected, (h, c)), state = seeded(model, x)
    own = rows.stop - rows.start

    with shard.data_parallel(dim=1, batch_size=own):
        (output, (own_h, own_c)), after = seeded(model, x[:, rows])

    assert_close(output, expected[:, rows])
    assert_close((own_h, own_c), (h[:, rows], c[:, rows]))
    assert torch.equal(after, state)


def test_recurrent_layers_follow(groups):
    """Ranks drop the same weights, and inputs, states and outputs as one process drops those of their samples."""
    groups[2].run(recurrent_layers, (3, 2))


def transformer(sizes, batch_first):
    rows = rows_of(sizes)
    torch.manual_seed(1)
    model = torch.nn.TransformerEncoderLayer(8, 2, 16, 0.5, batch_first=batch_first, dtype=torch.float64)
    batch = 0 if batch_first else 1
    x = torch.randn(sum(sizes), 5, 8, dtype=torch.float64)
    x = x if batch_first else x.transpose(0, 1).contiguous()
    if not batch_first:
        shard.batch_dim(model.self_attn, 0, flattened=True)
    with dropkit.installed():
        expected, state = seeded(model, x)
        torch.manual_seed(0)
        with shard.data_parallel(dim=batch, batch_size=rows.stop - rows.start):
            output = model(x.narrow(batch, rows.start, rows.stop - rows.start))
    assert_close(output, expected.narrow(batch, rows.start, rows.stop - rows.start))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("batch_first", [True, False], ids=["batch first", "sequence first"])
def test_torchs_transformer_layer_follows_under_install(groups, batch_first):
    """All dropout in it, also that of its attention, which holds batch and heads, is that of one process."""
    groups[2].run(transformer, (3, 4), batch_first)


def recomputed_and_compiled(sizes):
    rows, total = rows_of(sizes), sum(sizes)
    own = rows.stop - rows.start
    x = torch.ones(total, 6)

    def region(x):
        return functional.dropout(functional.dropout(x.exp(), 0.3), 0.3).sin()

    expected, _ = seeded(region, x)
    for use_reentrant in (False, True):
        part = x[rows].clone().requires_grad_()
        torch.manual_seed(0)
        with shard.data_parallel():
            output = checkpoint(region, part, use_reentrant=use_reentrant)
        output.sum().backward()
        assert torch.equal(output, expected[rows])
        assert torch.equal(part.grad == 0, expected[rows] == 0)

    compiled = torch.compile(region, backend="aot_eager", fullgraph=True)
    with shard.data_parallel():
        raises(Exception, "pass batch_size= to shard.data_parallel", lambda: compiled(x[rows]))

    @torch.compile(backend="eager", fullgraph=True)
    def block_inside(x):
        with shard.data_parallel(batch_size=own):
            return functional.dropout(x)

    raises(Exception, "must be entered outside of compiled functions", lambda: block_inside(x[rows]))
    for batch_size in (own, own):
        torch.manual_seed(0)
        with shard.data_parallel(batch_size=batch_size):
            assert torch.equal(compiled(x[rows]), expected[rows])


def test_checkpointed_and_compiled_code_follows(groups):
    """Backward after the block uses its masks; under fullgraph=True the batch size must be given."""
    groups[2].run(recomputed_and_compiled, (3, 5))


def micro_batches(sizes, size):
    rows, total = rows_of(sizes), sum(sizes)
    x = torch.ones(total, 6)
    expected, state = seeded(lambda: (functional.dropout(x), functional.dropout(x)))
    part = x[rows]
    for batch_size in (None, len(part)):
        torch.manual_seed(0)
        outputs = []
        with shard.data_parallel(batch_size=batch_size):
            for of_part in shard.micro_batches(len(part), size):
                outputs.append((functional.dropout(part[of_part]), functional.dropout(part[of_part])))
        for whole, parts in zip(expected, zip(*outputs, strict=True), strict=True):
            assert torch.equal(torch.cat(parts), whole[rows])
        assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("sizes", [(5, 2), (3, 0)], ids=str)
def test_micro_batches_of_each_rank_use_the_masks_of_the_whole_batch(groups, sizes):
    """Ranks may have different numbers of micro-batches, also none."""
    groups[2].run(micro_batches, sizes, 2)


def generators_that_disagree():
    x, rank = torch.ones(2, 3), distributed.get_rank()
    expected = functional.dropout(torch.ones(6, 3), key=7)
    for batch_size in (None, 2):
        torch.manual_seed(rank // 2)
        with shard.data_parallel(batch_size=batch_size):
            raises(RuntimeError, r"got 2 states, on ranks 0, 1; rank 2: call torch.manual_seed\(one seed\)",
                   lambda: functional.dropout(x))  # fmt: skip
            assert torch.equal(functional.dropout(x, key=7), expected[2 * rank : 2 * rank + 2])


def test_ranks_whose_generators_disagree_are_named(groups):
    """The error says which ranks, and what to do; where keys are given it is not needed."""
    groups[3].run(generators_that_disagree)


def shapes_that_differ():
    rank = distributed.get_rank()
    torch.manual_seed(0)
    with shard.data_parallel():
        raises(RuntimeError, r"along all dimensions but 0.*\(4,\) on rank 0; \(5,\) on rank 1.*Pad to one length",
               lambda: functional.dropout(torch.ones(2, 4 + rank)))  # fmt: skip
    torch.manual_seed(0)
    with shard.data_parallel(batch_size=2):
        functional.dropout(torch.ones(2, 4 + rank))
    with pytest.raises(RuntimeError, match=r"in the block before, \(4, 4\) on rank 0; \(4, 5\) on rank 1"):  # noqa: SIM117
        with shard.data_parallel(batch_size=2):
            pass
    with shard.data_parallel(batch_size=2):
        functional.dropout(torch.ones(2, 4))
    with shard.data_parallel(batch_size=2):
        pass


def test_ranks_with_tensors_of_different_lengths_are_refused(groups):
    """At once if the batch size is exchanged with the first input, else when the next block begins."""
    groups[2].run(shapes_that_differ)


def statements_that_contradict():
    torch.manual_seed(0)
    with shard.data_parallel(batch_size=2):
        raises(RuntimeError, "must not be inside of another data_parallel", lambda: shard.data_parallel().__enter__())
        raises(RuntimeError, "must be the outermost", shard.different_masks)
    raises(ValueError, "batch_size must be an integer of at least 0, got -1",
           lambda: shard.data_parallel(batch_size=-1).__enter__())  # fmt: skip
    raises(ValueError, "batch_size must be given where flattened",
           lambda: shard.data_parallel(flattened=True).__enter__())  # fmt: skip
    raises(TypeError, "dim must be an integer", lambda: shard.data_parallel(dim="0").__enter__())
    groups = [distributed.new_group([rank]) for rank in range(2)]
    one, other = groups if distributed.get_rank() == 0 else reversed(groups)
    raises(ValueError, "one that this rank belongs to", lambda: shard.data_parallel(other).__enter__())
    with shard.data_parallel(one):
        functional.dropout(torch.ones(3, 3))
    assert not slices.state.parts


def test_contradictions_are_refused(groups):
    """Arguments are checked before ranks exchange anything; a group of one rank holds the whole."""
    groups[2].run(statements_that_contradict)


def torchs_own_dropout():
    torch._dynamo.utils.counters.clear()  # as in a process that has compiled nothing
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match=r"had no effect.*dropkit.install\(\)"), shard.data_parallel():
        F.dropout(torch.ones(2, 3))
    with shard.data_parallel():
        pass


def test_torchs_own_dropout_in_a_block_warns(groups):
    """A block in which torch's own dropout runs alone says so."""
    groups[2].run(torchs_own_dropout)


def by_torch_func():
    x = torch.ones(2, 3)
    with shard.data_parallel(batch_size=2):
        output, gradient = torch.func.vjp(lambda x: functional.dropout(x, key=7), x)
        assert torch.equal(gradient(x)[0], output)
        raises(NotImplementedError, "vmap", lambda: torch.vmap(partial(functional.dropout, key=7))(x))
        raises(NotImplementedError, "vmap",
               lambda: torch.vmap(torch.func.grad(lambda x: functional.dropout(x, key=7).sum()))(x))  # fmt: skip
        compiled = torch.compile(torch.vmap(partial(functional.dropout, key=7)), backend="eager", fullgraph=True)
        raises(Exception, "vmap", lambda: compiled(x))


def test_a_hidden_batch_is_refused(groups):
    """Derivatives follow the block; under vmap, which hides a dimension, it is an error."""
    groups[2].run(by_torch_func)


def under_fsdp(sizes):
    rows = rows_of(sizes)
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), nn.Dropout(), torch.nn.Linear(8, 4), nn.DropPath()).double()
    x = torch.randn(sum(sizes), 6, dtype=torch.float64)
    expected, _ = seeded(copy.deepcopy(model), x)
    for layer in (model[0], model[2], model):
        fully_shard(layer)
    torch.manual_seed(0)
    with shard.data_parallel():
        output = model(x[rows])
    output.sum().backward()
    assert_close(output, expected[rows])
    assert torch.equal(output == 0, expected[rows] == 0)


def test_fully_sharded_models_follow(groups):
    """FSDP2 shards parameters; samples are split as under DDP."""
    groups[2].run(under_fsdp, (3, 4))


def audited():
    model = torch.nn.Sequential(torch.nn.Linear(16, 64), nn.Dropout(), torch.nn.Linear(64, 4))
    auditor = Auditor(group=distributed.group.WORLD, ignore=["DRP4"])
    torch.manual_seed(0)

    def codes():
        return [finding.code for finding in auditor.audit(model, torch.randn(8, 16)).findings]

    assert codes() == ["DRP307"]
    with shard.data_parallel(batch_size=8):
        assert codes() == []
    with shard.different_masks():
        assert codes() == []
    torch.manual_seed(distributed.get_rank())
    assert codes() == []


def test_the_audit_reports_equal_masks_of_ranks_outside_of_blocks_alone(groups):
    """Equal seeds without a statement give equal masks on different samples."""
    groups[2].run(audited)


# Tensor parallelism.


def units_of(total, chunks=None):
    """This rank's units: as torch.chunk splits them, or by explicit sizes."""
    if chunks is not None:
        return rows_of(chunks)
    index, world = distributed.get_rank(), distributed.get_world_size()
    parts = torch.arange(total).chunk(world)
    return slice(int(parts[index][0]), int(parts[index][-1]) + 1) if index < len(parts) else slice(total, total)


def split_layers(total, chunks):
    units = units_of(total, chunks)
    x = torch.ones(4, total)
    expected, state = seeded(lambda: functional.dropout(x))
    layers = [shard.split(nn.Dropout()), shard.split(torch.nn.Dropout())]
    if chunks is None:
        layers += [shard.split(nn.Dropout(), total=total)]
        layers += [torch.compile(shard.split(nn.Dropout(), total=total), backend="aot_eager", fullgraph=True)]
    layers += [copy.deepcopy(layers[0]), pickle.loads(pickle.dumps(layers[0]))]
    for layer in layers:
        for _ in range(2):
            torch.manual_seed(0)
            with dropkit.installed() if type(layer) is torch.nn.Dropout else nullcontext():
                assert torch.equal(layer(x[:, units]), expected[:, units])
            assert torch.equal(torch.get_rng_state(), state)
    raises(ValueError, "must have size .* along dimension 1, this process's part of",
           lambda: layers[0](torch.ones(4, 99)))  # fmt: skip
    assert torch.equal(shard.unsplit(layers[0])(x, key=7), functional.dropout(x, key=7))


@pytest.mark.parametrize(
    ("total", "chunks"), [(8, None), (7, None), (2, None), (7, (1, 4, 2))], ids=["8", "7", "2", "(1, 4, 2)"]
)
def test_units_split_among_ranks_have_the_mask_of_the_layer(groups, total, chunks):
    """Split as torch.chunk does, with an empty part, or in any way: found by one exchange, or from the total."""
    groups[3].run(split_layers, total, chunks)


def plans():
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(6, 12), torch.nn.ReLU(), nn.Dropout(), torch.nn.Linear(12, 4)).double()
    x = torch.randn(5, 6, dtype=torch.float64)
    expected, _ = seeded(copy.deepcopy(model), x)
    plan = {"0": ColwiseParallel(), "2": shard.LocalShard(-1), "3": RowwiseParallel()}
    parallel = parallelize_module(model, mesh, plan)
    output, _ = seeded(parallel, x)
    assert_close(output, expected)
    raises(TypeError, r"must be a local tensor, got a DTensor.*unsplit",
           lambda: parallel[2](distribute_tensor(torch.ones(5, 12), mesh, [Shard(1)])))  # fmt: skip


def test_a_plan_splits_a_layer_between_columns_and_rows(groups):
    """`LocalShard` in a plan of parallelize_module gives the output of one process."""
    groups[2].run(plans)


def a_grid_of_ranks():
    """Ranks 0, 1 and 2, 3 hold the samples; 0, 2 and 1, 3 the units."""
    row, column = divmod(distributed.get_rank(), 2)
    by_row = [distributed.new_group([2 * index, 2 * index + 1]) for index in range(2)]
    by_column = [distributed.new_group([index, index + 2]) for index in range(2)]
    x = torch.ones(6, 8)
    rows, units = (slice(0, 4), slice(4, 6))[row], (slice(0, 3), slice(3, 8))[column]
    expected, state = seeded(lambda: (functional.dropout(x), functional.dropout(x)))
    layer = shard.split(nn.Dropout(), 1, by_row[row])
    raises(Exception, "a group cannot be saved",
           lambda: pickle.loads(pickle.dumps(layer))(x[rows, units]))  # fmt: skip
    torch.manual_seed(0)
    with shard.data_parallel(by_column[column]):
        output = layer(x[rows, units]), functional.dropout(x[rows])
    assert torch.equal(output[0], expected[0][rows, units])
    assert torch.equal(output[1], expected[1][rows])
    assert torch.equal(torch.get_rng_state(), state)


def test_samples_and_units_may_both_be_split(groups):
    """A split layer in a data-parallel block, on a grid of 2 x 2 ranks."""
    groups[4].run(a_grid_of_ranks)


def dtensors_of_a_row():
    """Rows of the mesh hold samples; along a row, the units of a DTensor are split."""
    mesh = DeviceMesh("cpu", torch.arange(4).view(2, 2), mesh_dim_names=("samples", "units"))
    row = mesh.get_local_rank("samples")
    x = torch.ones(6, 8)
    rows = (slice(0, 4), slice(4, 6))[row]
    expected, state = seeded(functional.dropout, x)
    torch.manual_seed(0)
    with shard.data_parallel(mesh.get_group("samples")):
        output = functional.dropout(distribute_tensor(x[rows], mesh["units"], [Shard(1)], src_data_rank=None))
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(output.full_tensor(), expected[rows])
        whole = distribute_tensor(x, mesh, [Shard(0), Shard(1)], src_data_rank=None)
        raises(TypeError, "spans several ranks of the group", lambda: functional.dropout(whole))
    assert torch.equal(functional.dropout(whole, key=7).full_tensor(), functional.dropout(x, key=7))


def test_dtensors_hold_the_samples_of_a_rank_or_know_themselves(groups):
    """A DTensor over units in a data-parallel block is right; one over samples, too, needs no block and is refused."""
    groups[4].run(dtensors_of_a_row)


# Other masks on each rank.


def masks_of_their_own():
    rank = distributed.get_rank()
    x = torch.ones(64, 64)
    plain, state = seeded(functional.dropout, x)
    torch.manual_seed(0)
    with shard.different_masks():
        outputs = [functional.dropout(x), nn.DropPath()(x), functional.dropout(x, key=random.key(7))]
        with shard.whole():
            assert torch.equal(functional.dropout(x, key=7), outputs[2]), (
                "what is not split has a mask on each rank, too"
            )
    stacked = torch.empty_like(x)
    reference.drop(stacked, x, Mask(7, inverted(0.5), offset=rank * 2**48))
    assert torch.equal(stacked, outputs[2])
    assert torch.equal(functional.dropout(x, key=7), functional.dropout(x.clone(), key=7)), "the block has ended"
    torch.manual_seed(0)
    shard.different_masks()
    assert torch.equal(functional.dropout(x), outputs[0])
    assert torch.equal(torch.get_rng_state(), state)
    with shard.holding(shard.Slice(0, 8, 64)), shard.holding(shard.Slice(0, 8, 56)):
        assert torch.equal(functional.dropout(x[16:20], key=7), outputs[2][16:20])
    compiled = torch.compile(functional.dropout, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(x, key=torch.tensor(7)), outputs[2])
    slices.state.parts = slices.everywhere = ()
    assert torch.equal(plain, outputs[0]) == (rank == 0)
    return outputs


def test_each_rank_may_have_a_mask_of_its_own(groups):
    """Under one seed, or one key, no two ranks have equal masks; rank 0 has that of one process."""
    outputs = groups[3].run(masks_of_their_own)

    for masks, count in zip(zip(*outputs, strict=True), (64 * 64, 64, 64 * 64), strict=True):
        for one, other in itertools.combinations(masks, 2):
            share = (one == other).double().mean()
            assert abs(share - 0.5) < 5 * (0.25 / count) ** 0.5
