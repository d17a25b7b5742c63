"""Attention and recurrent networks that are recomputed with their dropout as a site give what torch gives."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.rounding import equal_but_for_rounding
from torch import nn
from torch.utils._pytree import tree_leaves

from dropkit.mc.batch_dim_probe import ProbeMode

Q = torch.randn(3, 4, 5, 8, generator=torch.Generator().manual_seed(6))


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"is_causal": True},
        {"scale": 0.2},
        {"attn_mask": torch.randn(5, 5)},
        {"attn_mask": torch.eye(5, dtype=torch.bool) | (torch.arange(5) > 2)},
        {"attn_mask": torch.tensor([[True], [False], [True], [False], [True]]).expand(5, 5)},
        {"enable_gqa": True},
    ],
    ids=["plain", "causal", "scale", "added", "masked", "a fully masked row", "grouped"],
)
def test_recomputed_attention_is_torchs(arguments: dict[str, Any]) -> None:
    """Attention that is recomputed with its dropout as a site gives what torch gives without dropout."""
    kv = Q[:, :2] if "enable_gqa" in arguments else Q.flip(0)
    expected = F.scaled_dot_product_attention(Q, kv, kv, **arguments)

    with ProbeMode() as probe:
        result = F.scaled_dot_product_attention(Q, kv, kv, dropout_p=0.5, **arguments)

    assert len(probe.seen) == 1
    # A score is a dot product of 8 terms, and its error is the relative error of a weight; the softmax and the product
    # with the values are sums of 5 terms each.
    largest_score = math.ceil((Q.abs().amax() ** 2 * 8).item())
    assert equal_but_for_rounding(result, expected, 8 * largest_score + 5 + 5)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("settings", [{}, {"bidirectional": True}, {"bias": False, "batch_first": True}])
@pytest.mark.parametrize("given", [False, True], ids=["no state", "state"])
def test_recomputed_recurrent_networks_are_torchs(kind: Any, settings: dict[str, Any], given: bool) -> None:
    """Networks that are recomputed layer by layer give the output and state that torch gives without dropout."""
    network = kind(8, 6, 3, dropout=0.5, **settings).eval()
    state = torch.randn(3 * (1 + network.bidirectional), 5 if not network.batch_first else 4, 6)
    hx = ((state, state * 2) if kind is nn.LSTM else state) if given else None
    x = torch.randn(4, 5, 8)
    expected = network(x, hx)

    with ProbeMode() as probe:
        result = network(x, hx)

    assert len(probe.seen) == 2
    assert all(map(torch.equal, tree_leaves(result), tree_leaves(expected)))
