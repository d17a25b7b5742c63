"""Training on any number of processes has the losses of one, also after a kill and a restart on another number."""

from __future__ import annotations

import os
import runpy
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers.processes import Ranks

EXAMPLES = Path(__file__).parents[2] / "examples"
STEPS, KILLED_AT = 8, 5


@pytest.fixture(scope="module")
def groups() -> Iterator[dict[int, Ranks]]:
    groups = {size: Ranks(size) for size in (1, 2, 3)}
    yield groups
    for group in groups.values():
        group.stop()


def train(name, *arguments):
    return runpy.run_path(str(EXAMPLES / name))["train"](*arguments)


def assert_equal_but_for_rounding(losses, expected):
    """Both are float64."""
    torch.testing.assert_close(torch.tensor(losses, dtype=torch.float64), torch.tensor(expected, dtype=torch.float64))


def kill(step):
    """End this process as the system does, in the middle of a step."""
    if step == KILLED_AT:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module")
def losses(groups):
    """The losses of one process."""
    (losses,) = groups[1].run(train, "data_parallel.py", None, STEPS)
    return losses


@pytest.mark.parametrize("world_size", [2, 3])
def test_a_digit_network_has_the_losses_of_one_process(groups, losses, world_size):
    """Also where 50 samples are split over 3 ranks; what remains is the rounding of sums in another order."""
    of_ranks = groups[world_size].run(train, "data_parallel.py", None, STEPS)

    for of_rank in of_ranks:
        assert_equal_but_for_rounding(of_rank, losses)


def test_a_killed_run_goes_on_with_another_number_of_processes(groups, losses, tmp_path):
    """After kill -9 of 3 ranks in the middle of a step, 2 ranks and then 1 go on as if nothing had happened."""
    file = str(tmp_path / "checkpoint")
    with pytest.raises(AssertionError, match="the process ended"):
        groups[3].run(train, "data_parallel.py", file, STEPS, kill)
    by_two = groups[2].run(train, "data_parallel.py", file, STEPS - 1)
    (by_one,) = groups[1].run(train, "data_parallel.py", file, STEPS)

    assert_equal_but_for_rounding([*by_two[0], *by_one], losses[KILLED_AT:])


def test_a_split_hidden_layer_has_the_losses_of_one_process(groups):
    """Tensor parallelism over 1, 2 and 3 ranks, by a plan."""
    one, two, three = (groups[size].run(train, "tensor_parallel.py", STEPS) for size in (1, 2, 3))

    for of_rank in (*two, *three):
        assert_equal_but_for_rounding(of_rank, one[0])
