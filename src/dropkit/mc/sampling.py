"""sampling: a `with` block in which every dropout of a model in evaluation mode draws.

Source: Gal, Ghahramani, "Dropout as a Bayesian Approximation: Representing Model Uncertainty in Deep Learning", ICML
2016, arXiv:1506.02142.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any

import torch

from dropkit.dropout_functions import DropoutFunction
from dropkit.mc import generators
from dropkit.mc.mode import Args, Kwargs, Mode
from dropkit.mc.training_flag.override import Block, raised
from dropkit.modes import force_eager


class NothingToSample(RuntimeError):
    """A model was to be sampled from, and nothing in it drew."""


@contextmanager
def sampling() -> Generator[None]:
    """Let every dropout draw, of whatever kind, for the length of a `with` block, while the model stays in eval mode.

    Reaches `torch.nn.Dropout*`, `torch.nn.functional.dropout*` and dropkit's, the dropout inside `nn.LSTM`, `nn.GRU`,
    `nn.RNN`, `nn.MultiheadAttention` and the transformer layers, `F.scaled_dot_product_attention`, and modules that
    read their own flag to drop, such as timm's `DropPath`. No training flag is changed, batch norm keeps its
    statistics, and other threads see nothing of it. Draws come from torch's generator. Compiled models run uncompiled
    inside of the block.

    Noise of other kinds that a module draws in training mode alone stays off, with a warning that says where.

    Raises:
        NothingToSample: at the end of the block, if nothing drew.
        TypeError: a scripted module that drops was called.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout()).eval()
        >>> x = torch.ones(1, 4)
        >>> with dropkit.mc.sampling():
        ...     samples = torch.stack([model(x) for _ in range(50)])
        >>> bool((samples.var(0) > 0).all()), model.training
        (True, False)
    """
    mode = Drawing()
    state, of_python = torch.get_rng_state(), generators.state()
    with uncompiled() as block, mode:
        yield
    # What gates dropout may do so by Python's numbers alone.
    by_python = block.raised and of_python != generators.state()
    if not mode.drawn and torch.equal(state, torch.get_rng_state()) and not by_python:
        raise nothing(block.off)
    for note in block.off:
        # For the `with` statement, behind contextlib.
        warnings.warn(note, stacklevel=3)


def nothing(off: Iterable[str]) -> NothingToSample:
    """
    Args:
        off: notes on what is drawn in training mode, and is no dropout.
    """
    return NothingToSample(
        "; ".join(
            [
                "no dropout drew: the model has none that can be seen, or its rates are 0; dropkit.audit(model, ...) "
                "shows every dropout that it has",
                *off,
            ]
        )
    )


@contextmanager
def uncompiled(before: Block | None = None) -> Generator[Block]:
    """Run as Python, which a mode can see, and with the flags up that need to be."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Using `torch.compile.module.` when there are global hooks")
        with raised(before) as block, force_eager():
            yield block


class Drawing(Mode):
    """Draws are torch's own."""

    def dropout(self, function: DropoutFunction, p: float, func: Any, args: Args, kwargs: Kwargs) -> Any:
        return func(*args, **kwargs)

    def attention(self, function: DropoutFunction, p: float, func: Any, args: Args, kwargs: Kwargs) -> Any:
        return func(*args, **kwargs)

    def recurrent(self, func: Any, args: list[Any], packed: bool) -> Any:
        return func(*args)

    def random(self, func: Any, args: Args, kwargs: Kwargs) -> Any:
        return func(*args, **kwargs)
