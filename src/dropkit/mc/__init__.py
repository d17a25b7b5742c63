"""Monte Carlo dropout: the uncertainty of a model's predictions, from many passes with dropout left on."""

from dropkit.mc.sampling import NothingToSample, sampling

__all__ = ["NothingToSample", "sampling"]
