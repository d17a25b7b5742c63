"""Several samples of a single input in one pass, which takes hardly longer than one: most of it is Python code.

The first dropout turns its input, (1, ...), into one row for each sample, dropped by the masks that the samples have in
passes of their own, and the model computes the rows as it would a batch. `Passes` compares rows with single passes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dropkit.dropout_functions import RECURRENT
from dropkit.kernels import FLOATS
from dropkit.mc.keyed_mode import KeyedMode
from dropkit.mc.mode import Args, Kwargs
from dropkit.mc.site_mode import SiteDropout
from dropkit.nn.recurrent_layers import is_packed
from dropkit.torch_private import functorch_is_active, no_torch_function

# Functions that read values into Python, which may then decide for all samples at once.
_READING: frozenset[Any] = frozenset(
    getattr(owner, name)
    for owner in (Tensor, torch)
    for name in (
        "__bool__", "__int__", "__float__", "__index__", "__iter__", "__contains__", "__array__", "item", "tolist",
        "numpy", "nonzero", "equal", "allclose", "is_nonzero",
    )
    if hasattr(owner, name)
)  # fmt: skip


class NotTogether(Exception):
    """The model needs a pass for each sample."""


class TogetherMode(KeyedMode):
    """Serves one pass with several samples of one input."""

    # Set by `Passes`, since the other arguments are those of `KeyedMode`.
    samples: range

    def begin_pass(self, sample: int) -> None:
        super().begin_pass(sample)
        self._is_spread = False

    def not_random(self, func: Any, types: Any, args: Args, kwargs: Kwargs) -> Any:
        if self._is_spread and (func in _READING or (func in RECURRENT and not _states_fit(args))):
            raise NotTogether
        return super().not_random(func, types, args, kwargs)

    def drop(self, input: Tensor, dropout: SiteDropout) -> Tensor:
        site, count = self._next_site(), len(self.samples)
        with no_torch_function():
            is_row = input.dim() > 0 and len(input) in (1, count) and dropout.batch_dim is None
            if not is_row or dropout.inplace or input.dtype not in FLOATS or functorch_is_active():
                raise NotTogether
            input = self._accelerator.materialize(input)
            self._is_spread = True
            rows = input.expand(count, *input.shape[1:])
            spec = self._mask(input[:1], dropout, site)
            return self._sampler.drop_rows(rows, spec, site, self.samples, dropout.make_params(dropout.p))

    def uniform(self, shape: torch.Size, device: torch.device) -> Tensor:
        raise NotTogether

    def run_seeded(self, call: Callable[[], Any]) -> Any:
        raise NotTogether


def _states_fit(args: Args) -> bool:
    """Whether a recurrent function gets a state for each sequence: torch does not check it, and would write elsewhere.

    The states of a second layer are those of one input, where dropout between the layers has made rows of it.
    """
    if is_packed(args):
        return False
    input, states, *_, batch_first = args
    states = [states] if isinstance(states, Tensor) else states
    return all(state.shape[-2] == input.shape[0 if batch_first else 1] for state in states)
