"""A trial: one model, trained with one setting and one seed; and what was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite, nan
from typing import Any, cast

from dropkit.studies.setting import Setting


@dataclass(frozen=True)
class Trial:
    """What is to be trained.

    Trials with the same model and seed share everything but the dropout: split, initial weights, order of batches.

    Attributes:
        model: name of the model.
        setting: its dropout.
        seed: from 0 on.
    """

    model: str
    setting: Setting
    seed: int

    @cached_property
    def key(self) -> str:
        """The trial as one line of JSON, which identifies it in files and storages."""
        setting = self.setting
        values = {"model": self.model, "kind": setting.kind, "p": setting.p, "sites": setting.sites, "seed": self.seed}
        return json.dumps(values, ensure_ascii=False)

    @classmethod
    def from_key(cls, key: str) -> Trial:
        """Return the trial with this `key`.

        Raises:
            ValueError: it is not the key of a trial.
        """
        try:
            values = json.loads(key)
            p, sites = values["p"], values["sites"]
            setting = Setting(
                str(values["kind"]),
                tuple(map(float, cast("list[Any]", p))) if isinstance(p, list) else float(p),
                None if sites is None else tuple(map(str, sites)),
            )
            return cls(str(values["model"]), setting, int(values["seed"]))
        except (KeyError, TypeError, OverflowError, RecursionError) as error:
            raise ValueError(f"key must be that of a trial, got {key!r}") from error

    def __str__(self) -> str:
        return f"{self.model}, {self.setting}, seed {self.seed}"


@dataclass(frozen=True)
class Outcome:
    """What a trial measured.

    Attributes:
        trial: what was trained.
        metrics: numbers by name, such as "test_error"; fractions are in [0, 1].
        curves: by name, a value for each epoch that was measured; "epoch" holds the numbers of these epochs.
        seconds: of the training.
        failure: why there is no result; None if there is one. A metric that is not finite is a failure.
    """

    trial: Trial
    metrics: Mapping[str, float]
    curves: Mapping[str, tuple[float, ...]] = field(default_factory=dict[str, tuple[float, ...]])
    seconds: float = nan
    failure: str | None = None

    @property
    def failed(self) -> bool:
        """Whether there is no result."""
        return self.failure is not None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold; a number that is not finite is None."""
        return {
            "trial": json.loads(self.trial.key),
            "metrics": {name: _number(value) for name, value in self.metrics.items()},
            "curves": {name: list(map(_number, values)) for name, values in self.curves.items()},
            "seconds": _number(self.seconds),
            "failure": self.failure,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Outcome:
        """Return the outcome that `to_dict` wrote.

        Raises:
            ValueError: it is not one.
        """
        try:
            return cls(
                Trial.from_key(json.dumps(values["trial"])),
                {str(name): _float(value) for name, value in values["metrics"].items()},
                {str(name): tuple(map(_float, numbers)) for name, numbers in values["curves"].items()},
                _float(values["seconds"]),
                None if values["failure"] is None else str(values["failure"]),
            )
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"not an outcome: {error!r}") from error


def not_finite(metrics: Mapping[str, float]) -> str | None:
    """Return which metrics are NaN or infinite, as the reason of a failure; None if none is."""
    bad = [name for name, value in metrics.items() if not isfinite(value)]
    if not bad:
        return None
    return f"{bad[0]} is not finite" if len(bad) == 1 else f"{bad[0]} and {len(bad) - 1} other metrics are not finite"


def _number(value: float) -> float | None:
    """JSON has no NaN and no infinity."""
    return value if isfinite(value) else None


def _float(value: float | None) -> float:
    return nan if value is None else float(value)
