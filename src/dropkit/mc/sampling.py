"""sampling: a `with` block in which every dropout of a model in evaluation mode is active.

Source: Gal, Ghahramani, "Dropout as a Bayesian Approximation: Representing Model Uncertainty in Deep Learning", ICML
2016, arXiv:1506.02142.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from dropkit.mc.chosen_dropout import chosen, chosen_dropout
from dropkit.mc.generators import python_state
from dropkit.mc.mode import SamplingMode
from dropkit.mc.training_flag.override import Override, override_training_flags
from dropkit.modes import force_eager


class NothingToSample(RuntimeError):
    """No dropout was active in a model that was to be sampled from."""


@contextmanager
def sampling(
    model: nn.Module | None = None, *, p: float | None = None, sites: str | Sequence[str] | None = None
) -> Generator[None]:
    """Activate every dropout, of whatever kind, for a `with` block, while the model stays in evaluation mode.

    Reaches `torch.nn.Dropout*`, `torch.nn.functional.dropout*` and dropkit's, the dropout inside `nn.LSTM`, `nn.GRU`,
    `nn.RNN`, `nn.MultiheadAttention` and the transformer layers, `F.scaled_dot_product_attention`, and modules that
    gate dropout by their own `self.training`, such as timm's `DropPath`. No training flag is changed, batch norm keeps
    its statistics, and other threads are not affected. Random numbers come from torch's generator. Compiled models run
    uncompiled inside the block.

    Other noise that a module adds in training mode alone stays off, with a warning that says where.

    Args:
        model: whose modules `sites` names; every model that runs in the block is sampled from.
        p: the rate of every dropout, as for `predict`. If None, each has its own.
        sites: names of modules of `model`, or patterns: dropout is active in these alone. If None, everywhere.

    Raises:
        NothingToSample: at the end of the block, if no dropout was active.
        TypeError: a scripted module with dropout was called, or `sites` is given without `model`.
        ValueError: `p` is not in (0, 1), or no module has one of the names.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout()).eval()
        >>> x = torch.ones(1, 4)
        >>> with dropkit.mc.sampling():
        ...     samples = torch.stack([model(x) for _ in range(50)])
        >>> bool((samples.var(0) > 0).all()), model.training
        (True, False)
    """
    mode = SamplingMode()
    before, python_before = torch.get_rng_state(), python_state()
    with chosen_dropout(model, p, sites) as choice:
        with uncompiled(modules=choice.modules) as override, mode:
            yield
        # A module may drop by random numbers of Python alone.
        uses_python = override.modules and python_before != python_state()
        if not mode.random_calls and torch.equal(before, torch.get_rng_state()) and not uses_python:
            raise nothing_to_sample(override.noise_left_off)
    for note in (*choice.notes(), *override.noise_left_off):
        # Points at the `with` statement, behind contextlib.
        warnings.warn(note, stacklevel=3)


def nothing_to_sample(noise_left_off: Iterable[str]) -> NothingToSample:
    """The error of a model without active dropout.

    Args:
        noise_left_off: notes on noise in training mode that is not dropout.
    """
    where = "" if chosen().modules is None else " in sites"
    how_to_add = [] if chosen().p is None else ["p changes rates, and dropkit.retrofit(model, ...) adds dropout"]
    return NothingToSample(
        "; ".join(
            [
                f"no dropout is active: the model has none that can be seen{where}, or its rates are 0; "
                "dropkit.audit(model, ...) shows every dropout that it has",
                *how_to_add,
                *chosen().notes(),
                *noise_left_off,
            ]
        )
    )


@contextmanager
def uncompiled(previous: Override | None = None, modules: frozenset[int] | None = None) -> Generator[Override]:
    """Run compiled models as plain Python, which a function mode can see, and override training flags of dropout.

    Args:
        previous: from an earlier block on the same model, so that its modules are not examined again.
        modules: the ids of those whose flags may be overridden; all if None.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Using `torch.compile.module.` when there are global hooks")
        with override_training_flags(previous, modules) as override, force_eager():
            yield override
