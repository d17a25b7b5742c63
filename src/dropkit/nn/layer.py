"""The record that describes a layer to the rest of dropkit and to the tests.

CONTRIBUTING.md has the recipe for a new layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dropkit.kernels.params import MakeParams, Params, ScheduledParams, gaussian, inverted, unscaled
from dropkit.nn.mask_shapes import MakeMaskShape

# Arguments that every layer's function has.
_COMMON = frozenset({"input", "p", "training", "inplace", "generator", "key"})


@dataclass(frozen=True, slots=True)
class Counterpart:
    """What torch has of the same name.

    Attributes:
        function: in `torch.nn.functional`; where a fault is the same, its error is ours.
        module: in `torch.nn`; `convert` replaces it.
        operator: name of the operator in `torch.ops.aten` that `install` runs on dropkit's kernels. None if another
            layer names it.
    """

    function: Callable[..., Tensor]
    module: type[torch.nn.Module]
    operator: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One member of the dropout family.

    Attributes:
        function: the functional form.
        module: the module, which inherits from `DropoutModule`.
        make_params: from `p` to what kept and dropped elements become.
        mask_shape: from the shape of an input to the shape of its mask; None for one mask element per element.
        example_shape: of the smallest input that shows the layer at work, batch first.
        check: raise or warn about the rank of an input, also where nothing will be dropped.
        takes_rate: whether `p` is the expected fraction dropped, with nothing random at 1; else it is a number of at
            least 0 that the layer's own function checks.
        drops_channels: whether dimension 1 holds channels, whose number must not differ between nested samples.
        counterpart: torch's form of the layer; None if torch has none.
        options: keyword arguments, besides the common ones, with which `function` runs this record.
        variants: records of other options; the laws of the tests run on each.
        added_dims: how many dimensions its inputs have after those of the caller's tensor.
        choose: from the options of a call, by keyword, to the record that it runs; None if there are no options.
        where: where the layer is put, and at which rates, for the table in the documentation.
    """

    function: Callable[..., Tensor]
    module: type[torch.nn.Module]
    make_params: MakeParams
    mask_shape: MakeMaskShape | None
    example_shape: tuple[int, ...]
    check: Callable[[Tensor], None] | None = None
    takes_rate: bool = True
    drops_channels: bool = False
    counterpart: Counterpart | None = None
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    variants: tuple[Layer, ...] = ()
    added_dims: int = 0
    choose: Callable[..., Layer] | None = None
    where: str = ""

    @property
    def name(self) -> str:
        return self.module.__name__

    @property
    def takes_complex(self) -> bool:
        """Whether complex numbers can be dropped: whether kept ones are only scaled, and dropped ones 0."""
        return self.make_params in (inverted, unscaled)

    @property
    def keeps_zeros(self) -> bool:
        """Whether an element that is 0 stays 0, dropped or not."""
        return self.make_params in (inverted, unscaled, gaussian)

    def rate(self, p: float | Tensor) -> float | Tensor:
        """The rate of a call with `p`, not 0 unless it is a tensor, which decides whether the call needs a key.

        None is needed at the rates 0 and 1.
        """
        if self.takes_rate or (isinstance(p, Tensor) and p.is_cuda):  # on a GPU nobody reads it
            return p
        return (p > 0) * 0.5 if isinstance(p, Tensor) else 0.5

    def params(self, p: float | Tensor) -> Params:
        """The numbers of the dropout at rate `p`; if that is a tensor, they are read when an operator runs."""
        return ScheduledParams(p, self.make_params.__name__) if isinstance(p, Tensor) else self.make_params(p)

    def called_with(self, arguments: Mapping[str, Any]) -> Layer:
        """The record that a call of `function` with these keyword arguments runs."""
        if self.choose is None:
            return self
        return self.choose(**{name: value for name, value in arguments.items() if name not in _COMMON})
