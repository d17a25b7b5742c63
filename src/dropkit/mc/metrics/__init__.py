"""Quality: how good a prediction and its uncertainty are, given the truth."""

from dropkit.mc.metrics.classification import Bin, ClassQuality, RiskCoverage, class_quality
from dropkit.mc.metrics.ood import Measure, Ood, ood
from dropkit.mc.metrics.regression import Coverage, ValueQuality, fit_tau, interval, value_quality

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
