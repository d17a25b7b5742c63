"""The time steps of one layer of `nn.LSTM`, `nn.GRU` or `nn.RNN`, one by one, with dropped states."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

States = Sequence[Tensor]
# From what the input contributes to the gates, the dropped hidden state, and the states, to the next states.
Step = Callable[[Tensor, Tensor, States], States]


def run_steps(
    mode: str,
    steps: Sequence[Tensor],
    states: States,
    weights: Sequence[Tensor],
    has_bias: bool,
    mask: Tensor | None,
    backwards: bool,
) -> tuple[list[Tensor], States]:
    """Run one direction of one layer; the hidden state is multiplied by `mask` wherever it meets a weight.

    Args:
        mode: that of the `nn.RNNBase`.
        steps: inputs of each time step, (n, F); n may shrink, as in a packed sequence.
        states: hidden state (N, H), and for an LSTM the memory cells.
        weights: input and hidden weights, then their biases if `has_bias`, then the projection if there is one.
        mask: (N, H), of 0 and 1 / (1 - p); None where none is dropped.
        backwards: whether the last time step comes first.

    Returns:
        The outputs of each time step, and the states after the last.
    """
    # One product for all time steps.
    weight_ih = weights[0]
    is_gru = mode == "GRU"
    bias = None if not has_bias else weights[2] if is_gru else weights[2] + weights[3]
    contributions = torch.split(F.linear(torch.cat(list(steps)), weight_ih, bias), [step.shape[0] for step in steps])
    step = _STEPS[mode](weights, has_bias)
    outputs: list[Tensor] = []
    for contribution in reversed(contributions) if backwards else contributions:
        count = contribution.shape[0]
        active = states if count == states[0].shape[0] else [state[:count] for state in states]
        hidden = active[0] if mask is None else active[0] * mask[:count]
        after = step(contribution, hidden, active)
        outputs.append(after[0])
        # The states of samples that have ended, or have not begun, wait.
        states = (
            after
            if active is states
            else [torch.cat((new, old[count:])) for new, old in zip(after, states, strict=True)]
        )
    return outputs[::-1] if backwards else outputs, states


def _lstm(weights: Sequence[Tensor], has_bias: bool) -> Step:
    weight = weights[1].t()
    projection = weights[-1] if len(weights) == 2 + 2 * has_bias + 1 else None

    def step(contribution: Tensor, hidden: Tensor, states: States) -> States:
        entering, kept, cell, output = torch.addmm(contribution, hidden, weight).chunk(4, -1)
        memory = torch.addcmul(kept.sigmoid() * states[1], entering.sigmoid(), cell.tanh())
        new = output.sigmoid() * memory.tanh()
        return (new if projection is None else F.linear(new, projection)), memory

    return step


def _gru(weights: Sequence[Tensor], has_bias: bool) -> Step:
    weight, bias = weights[1], weights[3] if has_bias else None

    def step(contribution: Tensor, hidden: Tensor, states: States) -> States:
        reset, update, new = contribution.chunk(3, -1)
        own_reset, own_update, own_new = F.linear(hidden, weight, bias).chunk(3, -1)
        new = torch.addcmul(new, (reset + own_reset).sigmoid(), own_new).tanh()
        return (torch.addcmul(new, (update + own_update).sigmoid(), states[0] - new),)

    return step


def _rnn(activation: Callable[[Tensor], Tensor]) -> Callable[[Sequence[Tensor], bool], Step]:
    def make(weights: Sequence[Tensor], _: bool) -> Step:
        weight = weights[1].t()
        return lambda contribution, hidden, states: (activation(torch.addmm(contribution, hidden, weight)),)

    return make


_STEPS = {"LSTM": _lstm, "GRU": _gru, "RNN_TANH": _rnn(torch.tanh), "RNN_RELU": _rnn(torch.relu)}
