"""Calls in place on tensors that autograd may refuse to have written: dropkit refuses what torch refuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor


def _unwritable() -> dict[str, Callable[[tuple[int, ...]], Tensor]]:
    """Tensors that autograd may refuse to have written."""

    def without_grad(tensor: Tensor) -> Tensor:
        with torch.no_grad():
            return tensor.view(tensor.shape)

    def for_inference(shape: tuple[int, ...]) -> Tensor:
        with torch.inference_mode():
            return torch.ones(shape)

    return {
        "leaf": lambda shape: torch.ones(shape, requires_grad=True),
        "parameter": lambda shape: torch.nn.Parameter(torch.ones(shape)),
        "view of a leaf": lambda shape: torch.ones(shape, requires_grad=True).view(shape),
        "result": lambda shape: torch.ones(shape, requires_grad=True) * 1,
        "view of a result": lambda shape: (torch.ones(shape, requires_grad=True) * 1).view(shape),
        "saved": lambda shape: torch.ones(shape, requires_grad=True).sigmoid(),
        "detached": lambda shape: torch.ones(shape, requires_grad=True).detach(),
        "view without grad": lambda shape: without_grad(torch.ones(shape, requires_grad=True)),
        "one of several": lambda shape: torch.ones((2, *shape), requires_grad=True).unbind()[0],
        "of inference": for_inference,
        "expanded": lambda shape: torch.ones(1).expand(shape),
    }


UNWRITABLE = _unwritable()


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode], ids=lambda m: m.__name__)
@pytest.mark.parametrize("kind", UNWRITABLE)
def test_what_may_be_written_in_place_is_as_in_torch(shared_layer, kind, mode):
    """In-place calls work, or raise torch's error, with and without a graph, at every rate, in either mode."""

    def outcome(function, p, training):
        x = UNWRITABLE[kind](shared_layer.example_shape)
        try:
            with mode():
                y = function(x, p, training, True)
            seen = [y is x, y.requires_grad, y.is_leaf, y.stride(), x.shape]
            return [*seen, y.requires_grad and y.sum().backward()]
        except RuntimeError as error:
            return [str(error).partition(".")[0].partition(":")[0], x.shape]

    for p in (0.0, 0.5, 1.0):
        for training in (True, False):
            expected = outcome(shared_layer.counterpart.function, p, training)
            assert outcome(shared_layer.function, p, training) == expected, (p, training)
