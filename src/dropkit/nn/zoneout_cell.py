"""ZoneoutCell: zoneout around a recurrent cell.

Source: Krueger, Maharaj, Kramár, Pezeshki, Ballas, Ke, Goyal, Bengio, Courville, Pal, "Zoneout: Regularizing RNNs by
Randomly Preserving Hidden Activations", ICLR 2017, arXiv:1606.01305.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor, nn

from dropkit import random
from dropkit.nn.composed_layer import ComposedLayer
from dropkit.nn.draw_key import draw_key
from dropkit.nn.dynamic_rate import rate_of
from dropkit.nn.fx_module import FxModule
from dropkit.nn.zoneout import Zoneout


class ZoneoutCell(FxModule):
    """Call a recurrent cell, and let units of its states keep their previous value; see `dropkit.functional.zoneout`.

    In training each unit keeps its value with probability `hidden_p` or `cell_p`; in eval mode each becomes the
    expectation. The masks of hidden states and memory cells are independent.

    Args:
        cell: `nn.LSTMCell`, `nn.GRUCell`, `nn.RNNCell`, or any module that maps an input and a state, a tensor or a
            tuple of tensors, to the next state.
        hidden_p: expected fraction of hidden units that keep their previous value, in [0, 1].
        cell_p: the same for the second and further tensors of a state, the memory cells of an LSTM.

    Shape:
        Inputs and outputs are those of `cell`.

    Raises:
        ValueError: a rate is not in [0, 1].

    Example:
        >>> cell = ZoneoutCell(torch.nn.LSTMCell(8, 16), hidden_p=0.05, cell_p=0.5)
        >>> state = None
        >>> for input in torch.randn(10, 4, 8):
        ...     state = cell(input, state)
    """

    hidden_p: float = rate_of("hidden_zoneout")
    cell_p: float = rate_of("cell_zoneout")

    def __init__(self, cell: nn.Module, hidden_p: float = 0.05, cell_p: float = 0.0) -> None:
        super().__init__()
        self.cell = cell
        # Modules, so that an audit names each of them and a schedule finds their rates.
        self.hidden_zoneout: Zoneout = Zoneout(hidden_p)
        self.cell_zoneout: Zoneout = Zoneout(cell_p)

    def forward(
        self, input: Tensor, state: Any = None, *, generator: Generator | None = None, key: Tensor | int | None = None
    ) -> Any:
        """The next state.

        Args:
            input: of this time step.
            state: before it; zeros if None.
            generator, key: as for `dropout`; the i-th tensor of a state has the mask of `fold_in(key, i)`.
        """
        key = draw_key(input, max(self.hidden_p, self.cell_p), self.training, generator, key)
        current = self.cell(input, state)
        is_one = isinstance(current, Tensor)
        currents = (current,) if is_one else tuple(current)
        before = [torch.zeros_like(x) for x in currents] if state is None else [state] if is_one else state
        after = tuple(
            (self.cell_zoneout if index else self.hidden_zoneout)(
                previous, x, key=None if key is None else random.fold_in(key, index)
            )
            for index, (previous, x) in enumerate(zip(before, currents, strict=True))
        )
        return after[0] if is_one else after

    def extra_repr(self) -> str:
        return f"hidden_p={self.hidden_p}, cell_p={self.cell_p}"


LAYER = ComposedLayer(
    module=ZoneoutCell,
    inputs=lambda dtype: (torch.ones(8, 4, dtype=dtype), torch.zeros(8, 32, dtype=dtype)),
    dropped=lambda output, module: output == 0,
    wraps=lambda: {"cell": nn.GRUCell(4, 32)},
    rate="hidden_p",
    is_plain_in_eval=False,
    where="around the cells of a recurrent network, 0.05 on hidden states, 0.5 on memory cells",
)
