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
def test_generators_are_compared_on_any_default_device():
    """`torch.set_default_device` has no say in it."""
    with torch.device("meta"):
        assert shard.generators.fingerprints() == shard.generators.fingerprints()


def test_native_dropout_of_what_dropkit_cannot_drop_is_refused():
    """torch's own kernel would use the mask of one process's part."""
    refused = pytest.raises(NotImplementedError, match="masks do not follow")
    with refused, dropkit.installed(), shard.holding(shard.Slice(0, 0, 9)):
        torch.native_dropout(torch.ones(3, dtype=torch.complex64), 0.5, True)
