"""RecurrentDropout: dropout in `nn.LSTM`, `nn.GRU` and `nn.RNN` whose masks are the same at all time steps.

Source: Gal, Ghahramani, "A Theoretically Grounded Application of Dropout in Recurrent Neural Networks", NeurIPS 2016,
arXiv:1512.05287; Merity, Keskar, Socher, "Regularizing and Optimizing LSTM Language Models", 2017, arXiv:1708.02182.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Generator, Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from dropkit import random
from dropkit.arguments import check
from dropkit.kernels.gpu.send import send
from dropkit.nn.composed_layer import ComposedLayer
from dropkit.nn.draw_key import draw_key
from dropkit.nn.dynamic_rate import rate_of
from dropkit.nn.fx_module import FxModule
from dropkit.nn.locked_dropout import LockedDropout
from dropkit.nn.recurrent_steps import run_steps
from dropkit.ops import autograd

# One layer of each kind, by `nn.RNNBase.mode`.
_FUSED: dict[str, Any] = {"LSTM": torch.lstm, "GRU": torch.gru, "RNN_TANH": torch.rnn_tanh, "RNN_RELU": torch.rnn_relu}


class RecurrentDropout(FxModule):
    r"""Call an `nn.LSTM`, `nn.GRU` or `nn.RNN` with dropout whose masks are drawn once for all time steps.

    .. math:: \tilde x_t = x_t \odot k_x, \qquad h_t = \mathrm{cell}(\tilde x_t,\; h_{t-1} \odot k_h)

    where :math:`k = \mathrm{Bernoulli}(1 - p) / (1 - p)` for each sample and feature. The parameters stay those of
    `rnn`, in `state_dict` with the prefix `rnn.`. For the AWD-LSTM, whose weights are dropped besides, put it in
    `WeightDrop(..., ["rnn.weight_hh_l0"])`.

    Dropout of inputs, between layers and of outputs keeps torch's fused kernels. `recurrent_p` cannot: in training each
    time step is then a few operations of its own, as with `nn.LSTMCell` in a loop. In eval mode all is fused.

    One mask is for all gates, as with one recurrent mask in Keras. The state that a GRU carries over,
    :math:`z_t \odot h_{t-1}`, and the memory cells of an LSTM are not dropped; nor is, by `input_p`, the initial state.

    Args:
        rnn: its options, bidirectional, `batch_first`, `proj_size` and all others, hold. Its own `dropout`, which draws
            a mask for each time step, must be 0.
        input_p: expected fraction of the features of `input` dropped, in [0, 1].
        hidden_p: the same for the outputs of each layer but the last.
        recurrent_p: the same for the state that each layer reads at each time step.
        output_p: the same for the outputs of the last layer; the final states are not dropped.

    Shape:
        Inputs and outputs are those of `rnn`, packed sequences included.

    Raises:
        TypeError: `rnn` is none of the three.
        ValueError: a rate is not in [0, 1], or `rnn.dropout` is not 0.

    Example:
        >>> rnn = RecurrentDropout(torch.nn.LSTM(8, 16, num_layers=2), input_p=0.4, hidden_p=0.25, output_p=0.4)
        >>> output, (h, c) = rnn(torch.randn(10, 4, 8))
        >>> output.shape, h.shape
        (torch.Size([10, 4, 16]), torch.Size([2, 4, 16]))
    """

    input_p: float = rate_of("input_dropout")
    hidden_p: float = rate_of("hidden_dropout")
    recurrent_p: float = rate_of("recurrent_dropout")
    output_p: float = rate_of("output_dropout")

    def __init__(
        self,
        rnn: nn.RNNBase,
        input_p: float = 0.0,
        hidden_p: float = 0.0,
        recurrent_p: float = 0.0,
        output_p: float = 0.0,
    ) -> None:
        super().__init__()
        if not isinstance(rnn, nn.RNNBase) or rnn.mode not in _FUSED:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"rnn must be an nn.LSTM, nn.GRU or nn.RNN, got {type(rnn).__name__}")
        check("rnn.dropout", rnn.dropout == 0, "0, and the rate be given as hidden_p", rnn.dropout)
        self.rnn = rnn
        # Modules, so that an audit names each of them and a schedule finds their rates.
        self.input_dropout: LockedDropout = LockedDropout(input_p, batch_first=rnn.batch_first)
        self.hidden_dropout: LockedDropout = LockedDropout(hidden_p, batch_first=rnn.batch_first)
        self.recurrent_dropout: LockedDropout = LockedDropout(recurrent_p, batch_first=rnn.batch_first)
        self.output_dropout: LockedDropout = LockedDropout(output_p, batch_first=rnn.batch_first)

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Any = None,
        *,
        generator: Generator | None = None,
        key: Tensor | int | None = None,
    ) -> tuple[Any, Any]:
        """Call `rnn` with dropout in training mode, without in eval mode.

        Args:
            input, hx: as for `rnn`.
            generator, key: as for `dropout`. Layer l drops what it reads under `fold_in(key, 3 * l)`, and the states of
                its directions under the two keys that follow; the outputs of the last of n layers are dropped under
                `fold_in(key, 3 * n)`.
        """
        rnn, data = self.rnn, input.data if isinstance(input, PackedSequence) else input
        highest = max(self.input_p, self.hidden_p, self.recurrent_p, self.output_p)
        key = draw_key(data, highest, self.training, generator, key)
        call = _Call(rnn, _lay_out(rnn, input), key)
        states = call.initial_states(data, hx)

        x, finals = call.time_first(data), list[Sequence[Tensor]]()
        for layer in range(rnn.num_layers):
            x = call.drop(x, self.hidden_dropout if layer else self.input_dropout, 3 * layer)
            own = [state[call.directions * layer :][: call.directions] for state in states]
            x, final = call.run_layer(x, own, layer, self.recurrent_dropout)
            finals.append(final)
        x = call.drop(x, self.output_dropout, 3 * rnn.num_layers)

        output = call.as_it_came(x)
        if isinstance(input, PackedSequence):
            output = PackedSequence(output, input.batch_sizes, input.sorted_indices, input.unsorted_indices)
        return output, call.final_states([torch.cat(parts) for parts in zip(*finals, strict=True)])

    def extra_repr(self) -> str:
        names = ("input_p", "hidden_p", "recurrent_p", "output_p")
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)


@dataclass(frozen=True, slots=True)
class _Layout:
    """How samples and time steps lie in the tensors of a call.

    Attributes:
        samples: number of samples.
        has_batch: whether the caller's tensors have a batch.
        sizes: of a packed sequence the number of samples at each time step.
        order: of a packed sequence which sample is first, second and so on; None if they are in order.
        restored: the inverse of `order`.
    """

    samples: int
    has_batch: bool = True
    sizes: Tensor | None = None
    order: Tensor | None = None
    restored: Tensor | None = None


def _lay_out(rnn: nn.RNNBase, input: Tensor | PackedSequence) -> _Layout:
    if isinstance(input, PackedSequence):
        sizes = input.batch_sizes
        return _Layout(int(sizes[0]), True, sizes, input.sorted_indices, input.unsorted_indices)
    if input.dim() not in (2, 3):
        raise ValueError(f"input must be 2-D or 3-D, got {input.dim()}-D")
    if input.dim() == 2:
        return _Layout(1, has_batch=False)
    return _Layout(input.shape[0 if rnn.batch_first else 1])


@dataclass(frozen=True, slots=True)
class _Call:
    """One call of an `rnn`, layer by layer; x is (L, N, *) inside, or packed."""

    rnn: nn.RNNBase
    layout: _Layout
    key: Tensor | int | None

    @property
    def directions(self) -> int:
        return 2 if self.rnn.bidirectional else 1

    def time_first(self, x: Tensor) -> Tensor:
        if self.layout.sizes is not None:
            return x
        if not self.layout.has_batch:
            return x.unsqueeze(1)
        return x.transpose(0, 1) if self.rnn.batch_first else x

    def as_it_came(self, x: Tensor) -> Tensor:
        if self.layout.sizes is not None:
            return x
        if not self.layout.has_batch:
            return x.squeeze(1)
        return x.transpose(0, 1) if self.rnn.batch_first else x

    def initial_states(self, data: Tensor, hx: Any) -> list[Tensor]:
        """The states before the first step, as they are sorted in `data`: (layers * directions, N, H) each."""
        rnn, layout = self.rnn, self.layout
        widths = [rnn.proj_size or rnn.hidden_size] + [rnn.hidden_size] * (rnn.mode == "LSTM")
        rows = rnn.num_layers * self.directions
        if hx is None:
            rnn.check_input(self.time_first(data), layout.sizes)
            return [data.new_zeros(rows, layout.samples, width) for width in widths]
        states = list(cast("Sequence[Tensor]", hx if rnn.mode == "LSTM" else (hx,)))
        if not layout.has_batch:
            states = [state.unsqueeze(1) for state in states]
        if layout.order is not None:
            states = [state.index_select(1, layout.order) for state in states]
        rnn.check_input(self.time_first(data), layout.sizes)
        for state, width in zip(states, widths, strict=True):
            rnn.check_hidden_size(state, (rows, layout.samples, width))
        return states

    def final_states(self, states: Sequence[Tensor]) -> Any:
        if self.layout.restored is not None:
            states = [state.index_select(1, self.layout.restored) for state in states]
        if not self.layout.has_batch:
            states = [state.squeeze(1) for state in states]
        return tuple(states) if self.rnn.mode == "LSTM" else states[0]

    def drop(self, x: Tensor, dropout: LockedDropout, index: int) -> Tensor:
        """Drop features of x at all time steps."""
        if self.layout.sizes is not None:
            return self._drop_packed(x, dropout, index, self.layout.sizes)
        # With the batch where the caller has it, for `dropkit.shard`.
        if self.rnn.batch_first:
            return dropout(x.transpose(0, 1), key=self._key(index)).transpose(0, 1)
        return dropout(x, key=self._key(index))

    def _drop_packed(self, x: Tensor, dropout: LockedDropout, index: int, sizes: Tensor) -> Tensor:
        mask = self._mask(x, x.shape[-1], dropout, index)
        if mask is None:
            return x
        # 0, 1, ... within each time step.
        rows = torch.arange(len(x)) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
        mask = mask[send(rows, x.device) if autograd.can_use_fast_path(x) else rows.to(x.device)]
        return (x * mask).masked_fill(mask == 0, 0)

    def _mask(self, x: Tensor, width: int, dropout: LockedDropout, index: int) -> Tensor | None:
        """What each sample's features are multiplied by, (N, width), as samples are sorted in x; None if by 1."""
        samples = self.layout.samples
        ones = x.new_ones((samples, 1, width) if self.rnn.batch_first else (1, samples, width))
        mask = dropout(ones, key=self._key(index))
        if mask is ones:
            return None
        mask = mask.view(samples, width)
        return mask if self.layout.order is None else mask[self.layout.order]

    def _key(self, index: int) -> Tensor | int | None:
        return None if self.key is None else random.fold_in(self.key, index)

    def run_layer(
        self, x: Tensor, states: Sequence[Tensor], layer: int, dropout: LockedDropout
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """Outputs of one layer, and its final states; by torch's kernel unless states are dropped."""
        rnn, sizes, count = self.rnn, self.layout.sizes, self.directions
        weights = cast("list[list[Tensor]]", rnn.all_weights[count * layer : count * (layer + 1)])
        width = states[0].shape[-1]
        masks = [self._mask(x, width, dropout, 3 * layer + 1 + direction) for direction in range(count)]
        if masks[0] is not None:
            steps = x.unbind(0) if sizes is None else torch.split(x, cast("list[int]", sizes.tolist()))
            ran = [
                run_steps(rnn.mode, steps, [state[d] for state in states], weights[d], rnn.bias, mask, d == 1)
                for d, mask in enumerate(masks)
            ]
            outputs = [(torch.stack if sizes is None else torch.cat)(outputs) for outputs, _ in ran]
            finals = [torch.stack(parts) for parts in zip(*(state for _, state in ran), strict=True)]
            return torch.cat(outputs, -1), finals
        flat = [weight for direction in weights for weight in direction]
        hx = tuple(states) if rnn.mode == "LSTM" else states[0]
        options = (rnn.bias, 1, 0.0, rnn.training, rnn.bidirectional)
        if sizes is None:
            output, *finals = _FUSED[rnn.mode](x, hx, flat, *options, False)
        else:
            output, *finals = _FUSED[rnn.mode](x, sizes, hx, flat, *options)
        return output, finals


class _Identity(nn.RNN):
    """Copies inputs or states, up to tanh, so that dropped units show in the examples."""

    def __init__(self, num_layers: int, reads: str) -> None:
        super().__init__(32, 32, num_layers, bias=False)
        for name, weight in self.named_parameters():
            nn.init.eye_(weight) if reads in name else nn.init.zeros_(weight)


def _example(dtype: torch.dtype) -> tuple[Tensor, ...]:
    return torch.ones(3, 8, 32, dtype=dtype), torch.ones(1, 8, 32, dtype=dtype)


def _example_of_two_layers(dtype: torch.dtype) -> tuple[Tensor, ...]:
    return _example(dtype)[:1]


_INPUT = ComposedLayer(
    module=RecurrentDropout,
    inputs=_example,
    dropped=lambda output, module: output == 0,
    wraps=lambda: {"rnn": _Identity(1, "weight_ih")},
    rate="input_p",
    batch_dim=1,
    # Compilers break the graph at every recurrent layer of torch.
    takes_compiler=False,
    where="in recurrent networks: 0.4 to 0.65 on inputs, 0.2 to 0.3 between layers, 0.25 to 0.5 on states",
)
LAYER = replace(
    _INPUT,
    rate="recurrent_p",
    wraps=lambda: {"rnn": _Identity(1, "weight_hh")},
    variants=(
        _INPUT,
        replace(
            _INPUT, rate="hidden_p", wraps=lambda: {"rnn": _Identity(2, "weight_ih")}, inputs=_example_of_two_layers
        ),
        replace(_INPUT, rate="output_p"),
    ),
)
