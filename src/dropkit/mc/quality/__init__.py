"""Quality: how good a prediction and its uncertainty are, given the truth."""

from dropkit.mc.quality.classes import Bin, ClassQuality, RiskCoverage, class_quality
from dropkit.mc.quality.strangers import Measure, Ood, ood
from dropkit.mc.quality.values import Coverage, ValueQuality, fit_tau, interval, value_quality

__all__ = [
    "Bin",
    "ClassQuality",
    "Coverage",
    "Measure",
    "Ood",
    "RiskCoverage",
    "ValueQuality",
    "class_quality",
    "fit_tau",
    "interval",
    "ood",
    "value_quality",
]
