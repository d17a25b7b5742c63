"""The experiments: figures 9 and 10 of Srivastava et al. 2014, in smaller form, and batchwise dropout.

Sources: Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov, "Dropout: A Simple Way to Prevent Neural Networks
from Overfitting", JMLR 15, 2014; Graham, Reizenstein, Robinson, "Efficient batchwise dropout training using
submatrices", 2015, arXiv:1502.02478.
"""

from __future__ import annotations

from dataclasses import replace

from dropkit.studies import Recipe, Setting, Trial
from dropkit.studies.setting import BASELINE, grid
from reproduce.experiment import INPUTS, Experiment

# A rate is the fraction that is dropped; the paper's p is the fraction that is kept. Above 0.8, layers so narrow need
# far more steps to learn anything.
RATES = (0.1, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8)
# A quarter of the paper's 2048.
FIXED = 512
# Half of the paper's expected numbers of active units: then a rate of 0.8 has as many units more than the fixed network
# as the paper's highest rate, 0.9.
ACTIVE = (128, 128, 256)
# An eighth and a quarter of the paper's 1024-1024-2048.
NARROW, WIDE = (128, 128, 256), (256, 256, 512)
# Digits to train with, and so many epochs that the training error is near 0 without dropout.
EPOCHS = {100: 150, 250: 80, 500: 50, 1000: 30, 2000: 20, 3500: 15}
BATCHWISE = (1024, 1024)
BATCHWISE_RATES = (0.3, 0.5)

_ADAMW = Recipe(optimizer="adamw", learning_rate=0.001, clip_norm=0, samples=0)
# 1,000 digits are few enough for networks to overfit; most of the others test them.
_FIGURE_9 = Experiment(
    settings={"n": grid(["dropout"], RATES)},
    hidden=lambda _: (FIXED,) * 3,
    digits=lambda _: 1000,
    test=3500,
    epochs=lambda _: 25,
    recipe=_ADAMW,
)


def _active(trial: Trial) -> tuple[int, ...]:
    """Hidden units of which the same numbers are active at every rate."""
    return tuple(round(units / (1 - trial.setting.rates[0])) for units in ACTIVE)


# Rates of the paper's experiment: 0.2 of the inputs, half of the hidden units.
ALL_SITES = Setting("dropout", (0.2, 0.5, 0.5, 0.5), (INPUTS, "drop1", "drop2", "drop3"))

# A model is the number of its digits.
_FIGURE_10 = Experiment(
    settings={str(digits): (BASELINE, ALL_SITES) for digits in EPOCHS},
    hidden=lambda _: NARROW,
    digits=lambda trial: int(trial.model),
    test=1000,
    epochs=lambda trial: EPOCHS[int(trial.model)],
    recipe=_ADAMW,
)

EXPERIMENTS = {
    "figure 9a": _FIGURE_9,
    "figure 9b": replace(_FIGURE_9, settings={"pn": grid(["dropout"], RATES)}, hidden=_active),
    "figure 10": _FIGURE_10,
    "figure 10, wider": replace(_FIGURE_10, hidden=lambda _: WIDE),
    "batchwise": Experiment(
        settings={"mlp": grid(["dropout", "batchwise"], BATCHWISE_RATES)},
        hidden=lambda _: BATCHWISE,
        digits=lambda _: 1000,
        test=3500,
        epochs=lambda _: 20,
        recipe=Recipe(learning_rate=0.02, batch_size=100, clip_norm=0, samples=0),
    ),
}

# The wider networks were added when the narrow ones had shown no gain.
FIGURES_10 = ("figure 10", "figure 10, wider")
