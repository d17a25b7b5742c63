"""How good a prediction and its uncertainty are: calibration, likelihood, coverage, and detection of OOD inputs."""

from dropkit.mc.metrics.classification import ClassificationReport, ReliabilityBin, RiskCoverage, classification_report
from dropkit.mc.metrics.comparison import Comparison, Difference
from dropkit.mc.metrics.ood import OODMetrics, ood
from dropkit.mc.metrics.regression import IntervalCoverage, RegressionReport, fit_tau, interval, regression_report
from dropkit.public_names import public_names

__all__ = [
    "ClassificationReport",
    "Comparison",
    "Difference",
    "IntervalCoverage",
    "OODMetrics",
    "RegressionReport",
    "ReliabilityBin",
    "RiskCoverage",
    "classification_report",
    "fit_tau",
    "interval",
    "ood",
    "regression_report",
]


def __dir__() -> list[str]:
    return public_names(globals())
