"""Studies: train a model with and without dropout, in pairs, and say which kind, where and at what rate."""

from dropkit.public_names import public_names
from dropkit.studies.data import Data, Sizes
from dropkit.studies.kinds import KINDS, Kind, find_sites, place_dropout
from dropkit.studies.plan import Plan
from dropkit.studies.readers import read
from dropkit.studies.recommendation import Recommendation
from dropkit.studies.reports import write_reports
from dropkit.studies.result import StudyResult, load
from dropkit.studies.rows import Row
from dropkit.studies.setting import Setting
from dropkit.studies.statistics import Estimate
from dropkit.studies.study import study
from dropkit.studies.training import Recipe
from dropkit.studies.trial import Outcome, Trial

__all__ = [
    "KINDS",
    "Data",
    "Estimate",
    "Kind",
    "Outcome",
    "Plan",
    "Recipe",
    "Recommendation",
    "Row",
    "Setting",
    "Sizes",
    "StudyResult",
    "Trial",
    "find_sites",
    "load",
    "place_dropout",
    "read",
    "study",
    "write_reports",
]


def __dir__() -> list[str]:
    return public_names(globals())
