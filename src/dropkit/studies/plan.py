"""Plan: which trials a study consists of, and what their outcomes depend on."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import torch

import dropkit
from dropkit.arguments import check, positive_int
from dropkit.studies.evaluation import Metric
from dropkit.studies.setting import Setting
from dropkit.studies.trial import Trial


@dataclass(frozen=True, slots=True)
class Plan:
    """Which trials a study consists of.

    Attributes:
        settings: for each model by name, what is compared; the first is no dropout.
        seeds: number of seeds; they are 0, 1, 2 ...
        metric: what settings are compared by.
        chance: for each model, the validation metric that guessing reaches; None if unknown.
        description: everything else that outcomes depend on, as plain values.
        provenance: what they do not depend on but a reader wants to know: the command, and the machine.
    """

    settings: Mapping[str, tuple[Setting, ...]]
    seeds: int
    metric: Metric
    chance: float | None = None
    description: Mapping[str, Any] = field(default_factory=dict[str, Any])
    provenance: Mapping[str, str] = field(default_factory=lambda: provenance())

    def __post_init__(self) -> None:
        positive_int("seeds", self.seeds)
        for model, settings in self.settings.items():
            kinds = ", ".join(map(str, settings))
            is_comparison = len(settings) > 1 and settings[0].is_baseline
            check("settings", is_comparison, f"no dropout and at least one other for {model}", kinds)

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All trials; the settings of a seed take turns, so that a machine that slows down affects all of them."""
        return tuple(
            Trial(model, setting, seed)
            for seed in range(self.seeds)
            for model, settings in self.settings.items()
            for setting in settings
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, which tell studies apart, all but their "provenance"."""
        settings = {model: [asdict(setting) for setting in settings] for model, settings in self.settings.items()}
        return {
            "settings": settings, "seeds": self.seeds, "metric": asdict(self.metric), "chance": self.chance,
            "provenance": dict(self.provenance), "dropkit": dropkit.__version__, "torch": torch.__version__,
            **self.description,
        }  # fmt: skip

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Plan:
        """Return the plan that `to_dict` wrote; its description holds the versions, too.

        Raises:
            ValueError: it is not one.
        """
        try:
            settings = {model: tuple(map(_setting, group)) for model, group in values["settings"].items()}
            rest = {name: value for name, value in values.items() if name not in _FIELDS}
            metric, chance = Metric(**values["metric"]), values["chance"]
            return cls(settings, values["seeds"], metric, chance, rest, values["provenance"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a plan: {error!r}") from error


def provenance(command: str = "") -> dict[str, str]:
    """Return the command that runs a study, and on what it runs.

    Args:
        command: of a shell, or a call in Python; empty if unknown.
    """
    machine = f"{platform.system()} {platform.machine()}"
    return {"command": command, "python": platform.python_version(), "machine": machine}


_FIELDS = ("settings", "seeds", "metric", "chance", "provenance")


def _setting(values: Mapping[str, Any]) -> Setting:
    p, sites = (tuple(cast("list[Any]", v)) if isinstance(v := values[name], list) else v for name in ("p", "sites"))
    return Setting(values["kind"], p, sites)
