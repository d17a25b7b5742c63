"""The columns of tables, for terminals and pages."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan
from typing import Literal

Verdict = Literal["", "better", "worse", "failed"]


@dataclass(frozen=True, slots=True)
class Cell:
    """One value.

    Attributes:
        text: what is shown.
        value: the number to sort by.
        verdict: what it says about the row.
        image: a picture as the URL of its data; none if empty.
    """

    text: str = ""
    value: float = nan
    verdict: Verdict = ""
    image: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """One column, with a cell for each row.

    Attributes:
        heading: what is shown.
        unit: of the numbers; may be empty.
        short: the heading of a narrow column that follows one of the same metric.
        cells: one for each row.
        priority: where there is no space for all columns, those with the highest numbers are left out.
        is_number: whether it is aligned and sorted as numbers.
    """

    heading: str
    unit: str
    cells: tuple[Cell, ...]
    short: str = ""
    priority: int = 0
    is_number: bool = True
