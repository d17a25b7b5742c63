"""Train small networks on real digits with and without dropout, and compare their test errors with intervals."""

from dropkit.study.arms import ARMS, KINDS, Arm, DropoutKind, arms
from dropkit.study.digits import Digits, load
from dropkit.study.experiment import SEEDS, Experiment
from dropkit.study.intervals import Estimate, Row, estimate, rows
from dropkit.study.networks import NETWORKS
from dropkit.study.training import Recipe, Run, train

__all__ = [
    "ARMS",
    "KINDS",
    "NETWORKS",
    "SEEDS",
    "Arm",
    "Digits",
    "DropoutKind",
    "Estimate",
    "Experiment",
    "Recipe",
    "Row",
    "Run",
    "arms",
    "estimate",
    "load",
    "rows",
    "train",
]
