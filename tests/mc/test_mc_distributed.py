"""predict under torchrun: batches are distributed, and every process gets the result of a single process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import multiprocessing
from torch.utils.data import DataLoader, TensorDataset

sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers.mc_models import close, inputs, made

from dropkit.mc.predict import predict

WORLD = 2
CASES = {
    "input": {"masks": "input", "seed": 5, "batch_size": 16},
    "chunk": {"masks": "chunk", "seed": 5, "batch_size": 16, "chunk": 24, "keep_samples": True},
    "target": {"masks": "input", "seed": 5, "batch_size": 16, "target_standard_error": 0.02},
    "fewer batches than processes": {"masks": "input", "seed": 5, "batch_size": 100},
    "no seed": {"masks": "input", "batch_size": 16},
}


def _work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=WORLD)
    torch.manual_seed(rank)
    passes = 0

    def count(*_: object) -> None:
        nonlocal passes
        passes += 1

    model = made("mlp")
    model.register_forward_pre_hook(count)
    results = {name: predict(model, inputs(70), 30, **settings) for name, settings in CASES.items()}
    loader = DataLoader(TensorDataset(inputs(70)), batch_size=16)
    results["loader"] = predict(model, loader, 30, masks="input", seed=5)
    passes = 0
    predict(model, inputs(70), 30, masks="input", seed=5, batch_size=16)
    tensors = {name: (r.mean, r.entropy, r.sample_counts, r.samples) for name, r in results.items()}
    torch.save((tensors, passes), f"{folder}/{rank}")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):  # type: ignore[no-untyped-def]
    folder = str(tmp_path_factory.mktemp("ranks"))
    multiprocessing.spawn(_work, (folder,), WORLD)
    return [torch.load(f"{folder}/{rank}") for rank in range(WORLD)]


@pytest.mark.parametrize("name", [*CASES, "loader"])
def test_every_process_gets_the_whole_result(name: str, ranks) -> None:  # type: ignore[no-untyped-def]
    """All processes get the same, also where their generators differ."""
    first, second = (results[name] for results, _ in ranks)

    for on_first, on_second in zip(first, second, strict=True):
        assert on_first is on_second is None or torch.equal(on_first, on_second)


@pytest.mark.parametrize("name", [*CASES, "loader"])
def test_the_result_is_that_of_one_process(name: str, ranks) -> None:  # type: ignore[no-untyped-def]
    """Masks follow the inputs, not the processes; without a seed the first process's generator decides."""
    settings = CASES.get(name, {"masks": "input", "seed": 5})
    mean, _, samples, draws = ranks[0][0][name]
    torch.manual_seed(0)

    r = predict(made("mlp"), inputs(70), 30, **settings)

    assert close(r.mean, mean)
    assert torch.equal(r.sample_counts, samples)
    assert draws is None or close(r.samples, draws)


def test_the_batches_are_distributed(ranks) -> None:  # type: ignore[no-untyped-def]
    """Of five batches with 30 passes and a plain one, one process gets three; each makes three passes as a probe."""
    assert [passes for _, passes in ranks] == [3 * 31 + 3, 2 * 31 + 3]
