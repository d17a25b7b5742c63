"""fairseq's FairseqDropout on dropkit's dropout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Generator, Tensor

from dropkit.nn.dropout import dropout
from dropkit.nn.dynamic_rate import DynamicRate
from dropkit.patch.extended_class import ExtendedClass


class RunsFairseqDropout(ExtendedClass, DynamicRate):
    """What `convert` adds to the class, whose other methods and attributes it keeps.

    So fairseq's `make_generation_fast_`, which switches `apply_during_inference` on to drop in evaluation mode, works.
    """

    apply_during_inference: bool

    def forward_by_dropkit(
        self,
        forward: Callable[..., Any],
        x: Tensor,
        inplace: bool = False,
        *,
        generator: Generator | None = None,
        key: Tensor | int | None = None,
    ) -> Tensor:
        """Compute what the class documents: dropout in training mode, or whenever it is switched on."""
        training = self.training or self.apply_during_inference
        return dropout(x, self.rate, training, inplace, generator=generator, key=key)
