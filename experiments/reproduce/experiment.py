"""Experiment: which networks are trained with which dropout, as a plan that `run_plan` of `dropkit.studies` trains."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from time import process_time

from torch import nn

from dropkit.studies import Data, Outcome, Plan, Recipe, Setting, Sizes, Trial
from dropkit.studies.evaluation import default_metric
from dropkit.studies.study import fingerprint
from dropkit.studies.training import train

SEEDS = 5
VALIDATION = 500
# The site before the first layer.
INPUTS = "drop0"


@dataclass(frozen=True, slots=True)
class Experiment:
    """One figure.

    Attributes:
        settings: for each model by name, what is compared.
        hidden: the numbers of hidden units of a trial.
        digits: how many a trial is trained with.
        test: how many are used to test.
        epochs: of a trial.
        recipe: the rest of how networks are trained.
        seeds: how often each setting is trained.
        divisor: of the numbers of units, digits and epochs, for a quick check.
    """

    settings: Mapping[str, tuple[Setting, ...]]
    hidden: Callable[[Trial], tuple[int, ...]]
    digits: Callable[[Trial], int]
    test: int
    epochs: Callable[[Trial], int]
    recipe: Recipe
    seeds: int = SEEDS
    divisor: int = 1

    def quick(self) -> Experiment:
        """Return a small form of it, which is trained in seconds and shows nothing."""
        return replace(self, seeds=2, divisor=10)

    def plan(self, data: Data) -> Plan:
        """Return the trials."""
        trials = [Trial(model, setting, 0) for model, settings in self.settings.items() for setting in settings]
        description = {
            "data": data.name,
            "content": fingerprint(data.inputs, data.targets),
            "networks": {f"{t.model}, {t.setting}": [*self.units(t), asdict(self.recipe_of(t))] for t in trials},
        }
        return Plan(self.settings, self.seeds, default_metric(data), description=description)

    def train(self, data: Data, trial: Trial) -> Outcome:
        """Train one trial. Its seconds are processor time, which other work on the machine does not change much."""
        begin = process_time()
        outcome = train(
            trial, partial(mlp, trial, self.units(trial)), data, self.recipe_of(trial), default_metric(data)
        )
        return replace(outcome, seconds=process_time() - begin)

    def units(self, trial: Trial) -> tuple[int, ...]:
        """The numbers of hidden units."""
        return tuple(max(4, round(units / self.divisor)) for units in self.hidden(trial))

    def recipe_of(self, trial: Trial) -> Recipe:
        """How the network of a trial is trained."""
        sizes = (max(1, size // self.divisor) for size in (self.digits(trial), VALIDATION, self.test))
        return replace(self.recipe, sizes=Sizes(*sizes), epochs=max(1, self.epochs(trial) // self.divisor))


def mlp(trial: Trial, hidden: tuple[int, ...]) -> nn.Module:
    """Make a network of linear layers with ReLU and dropout; on the inputs only where the setting has it there."""
    layers: OrderedDict[str, nn.Module] = OrderedDict([("flatten", nn.Flatten())])
    if INPUTS in (trial.setting.sites or ()):
        layers[INPUTS] = nn.Dropout()
    sizes = (784, *hidden)
    for number, (inputs, outputs) in enumerate(zip(sizes, hidden, strict=False), start=1):
        layers[f"linear{number}"] = nn.Linear(inputs, outputs)
        layers[f"relu{number}"] = nn.ReLU()
        layers[f"drop{number}"] = nn.Dropout()
    layers["output"] = nn.Linear(hidden[-1], 10)
    return nn.Sequential(layers)
