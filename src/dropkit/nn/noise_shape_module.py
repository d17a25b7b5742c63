"""The base class of modules whose mask elements may be shared along dimensions that `noise_shape` names."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Generator, Tensor

from dropkit.nn.module import DropoutModule
from dropkit.nn.noise_shape import checked_noise_shape


class NoiseShapeModule(DropoutModule):
    """Adds `noise_shape=` to a module whose function takes it."""

    # Of the class as well, because `convert` and old pickles make objects without it.
    noise_shape: Sequence[int | None] | None = None

    def __init__(
        self, p: float = 0.5, inplace: bool = False, *, noise_shape: Sequence[int | None] | None = None
    ) -> None:
        super().__init__(p, inplace)
        if noise_shape is not None:
            self.noise_shape = checked_noise_shape(noise_shape, smallest=1)

    def forward(self, input: Tensor, *, generator: Generator | None = None, key: Tensor | int | None = None) -> Tensor:
        """Drop in training mode, return `input` itself otherwise; see the functional form."""
        p = self.p if self._rate_in_graphs is None else self.rate
        return type(self)._function(
            input, p, self.training, self.inplace, noise_shape=self.noise_shape, generator=generator, key=key
        )

    def extra_repr(self) -> str:
        return super().extra_repr() + ("" if self.noise_shape is None else f", noise_shape={self.noise_shape}")
