"""Log each trial of a study to TensorBoard or MLflow, by their own libraries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from math import isfinite
from pathlib import Path
from typing import Any

from dropkit.extras import needed_for
from dropkit.studies.trial import Outcome, Trial

Tracker = Callable[[Outcome], None]


def tensorboard(folder: str | Path) -> Tracker:
    """Return a function that writes an outcome as a run of its own below `folder`: curves, metrics and the setting.

    Raises:
        ImportError: tensorboard is not installed.
    """
    with needed_for("tensorboard", None):
        writer: Any = import_module("torch.utils.tensorboard").SummaryWriter

    def log(outcome: Outcome) -> None:
        with writer(str(Path(folder, _run_name(outcome.trial)))) as run:
            for name, epoch, value in _points(outcome):
                run.add_scalar(name, value, epoch)
            run.add_hparams(_parameters(outcome.trial), _metrics(outcome), run_name=".")
            if outcome.failure is not None:
                run.add_text("failure", outcome.failure)

    return log


def mlflow(uri: str, experiment: str = "dropkit study") -> Tracker:
    """Return a function that logs an outcome as a run of its own to the server or folder of a tracking URI.

    Raises:
        ImportError: mlflow is not installed.
    """
    with needed_for("mlflow", None):
        library: Any = import_module("mlflow")
    library.set_tracking_uri(uri)
    library.set_experiment(experiment)

    def log(outcome: Outcome) -> None:
        library.start_run(run_name=str(outcome.trial))
        library.log_params(_parameters(outcome.trial))
        for name, epoch, value in _points(outcome):
            library.log_metric(name, value, step=epoch)
        library.log_metrics(_metrics(outcome))
        if outcome.failure is not None:
            library.set_tag("failure", outcome.failure)
        library.end_run("FAILED" if outcome.failed else "FINISHED")

    return log


def _run_name(trial: Trial) -> str:
    """The trial as a folder; models and sites may have any names."""
    return "".join(c if c.isalnum() or c in "=.-_" else "_" for c in str(trial).replace(", ", "-").replace(" ", "-"))


def _points(outcome: Outcome) -> list[tuple[str, int, float]]:
    epochs = outcome.curves.get("epoch", ())
    curves = ((name, values) for name, values in outcome.curves.items() if name != "epoch")
    return [
        (name, int(epoch), value)
        for name, values in curves
        for epoch, value in zip(epochs, values, strict=True)
        if isfinite(value)
    ]


def _parameters(trial: Trial) -> dict[str, Any]:
    setting = asdict(trial.setting)
    return {"model": trial.model, "seed": trial.seed} | {
        name: value if isinstance(value, (str, float)) else str(value) for name, value in setting.items()
    }


def _metrics(outcome: Outcome) -> dict[str, float]:
    values = {**outcome.metrics, "seconds": outcome.seconds}
    return {name: value for name, value in values.items() if isfinite(value)}
