"""Stop candidates that are significantly worse than the best one so far, seed by seed.

Sources: Birattari, Stützle, Paquete, Varrentrapp, "A Racing Algorithm for Configuring Metaheuristics", GECCO 2002;
Student's paired test, with its level divided by the number of looks (Dunn, 1961).
"""

from __future__ import annotations

from math import sqrt
from statistics import mean, stdev

from optuna.pruners import BasePruner
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from dropkit.extras import needed_for

# With two seeds only a difference that is nearly the same for both is significant, which with errors of whole
# examples is chance.
FIRST_LOOK = 3
# The probability that a candidate as good as the leader is stopped.
_LEVEL = 0.05


class PairedRace(BasePruner):
    """A pruner that compares the values of a candidate with those of the leader for the same seeds.

    Args:
        seeds: how many values a candidate has at the end.
    """

    def __init__(self, seeds: int) -> None:
        self._looks = max(1, seeds - FIRST_LOOK)

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Return whether a trial is to be stopped; lower values are better."""
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if not complete:
            return False
        leader = min(complete, key=lambda other: (other.value, other.number)).intermediate_values
        own = trial.intermediate_values
        return is_worse([own[seed] - leader[seed] for seed in own if seed in leader], self._looks)


def is_worse(differences: list[float], looks: int = 1) -> bool:
    """Return whether a mean is above 0, by Student's one-sided test at a level of 5 % for all looks together."""
    with needed_for("pruner race", "tune"):
        from scipy.special import stdtrit  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType] (untyped)

    if len(differences) < FIRST_LOOK:
        return False
    error = stdev(differences) / sqrt(len(differences))
    return mean(differences) > float(stdtrit(len(differences) - 1, 1 - _LEVEL / looks)) * error
