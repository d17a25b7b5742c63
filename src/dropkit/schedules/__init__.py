"""Dropout rates that move over training: which rates, over which steps, at which layers of a model."""

from dropkit.patch.rate_sites import Site
from dropkit.public_names import public_names
from dropkit.schedules.rates import Constant, Cosine, Curriculum, Early, Late, Linear
from dropkit.schedules.schedule import RateSchedule

__all__ = ["Constant", "Cosine", "Curriculum", "Early", "Late", "Linear", "RateSchedule", "Site"]


def __dir__() -> list[str]:
    return public_names(globals())
