"""Dropout rates that move over training: which rates, over which steps, at which layers of a model."""

from dropkit.patch.rate_sites import Site
from dropkit.schedules.rates import Constant, Cosine, Curriculum, Early, Late, Linear
from dropkit.schedules.schedule import RateSchedule

__all__ = ["Constant", "Cosine", "Curriculum", "Early", "Late", "Linear", "RateSchedule", "Site"]
