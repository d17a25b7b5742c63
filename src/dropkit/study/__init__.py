"""Train small networks on real digits with and without dropout, and say how sure the difference is."""

from dropkit.study.digits import Digits, load
from dropkit.study.intervals import Estimate, Row, estimate, rows
from dropkit.study.kinds import ARMS, KINDS, Arm, Kind, arms
from dropkit.study.networks import NETWORKS
from dropkit.study.plan import SEEDS, Plan
from dropkit.study.training import Recipe, Run, train

__all__ = [
    "ARMS",
    "KINDS",
    "NETWORKS",
    "SEEDS",
    "Arm",
    "Digits",
    "Estimate",
    "Kind",
    "Plan",
    "Recipe",
    "Row",
    "Run",
    "arms",
    "estimate",
    "load",
    "rows",
    "train",
]
