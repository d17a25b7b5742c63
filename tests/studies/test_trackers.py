"""Trials in TensorBoard and MLflow, of which stand-ins record the calls."""

import sys
from math import nan
from types import SimpleNamespace

import pytest

from dropkit.studies import Outcome, Setting, Trial
from dropkit.studies.trackers import mlflow, tensorboard

TRIAL = Trial("model/a", Setting("dropout", 0.5, ("0", "3")), 1)
CURVES = {"epoch": (1.0, 2.0), "training_loss": (0.5, 0.25), "validation_loss": (0.75, nan)}
DONE = Outcome(TRIAL, {"test_error": 0.125}, CURVES, 2.0)
FAILED = Outcome(TRIAL, {"test_error": nan}, failure="test_error: not finite")

POINTS = [("training_loss", 0.5, 1), ("training_loss", 0.25, 2), ("validation_loss", 0.75, 1)]
PARAMETERS = {"model": "model/a", "seed": 1, "kind": "dropout", "p": 0.5, "sites": "('0', '3')"}


class Writer:
    """TensorBoard's SummaryWriter, as far as it is used."""

    def __init__(self, folder):
        runs.append(self)
        self.folder, self.points, self.hparams, self.texts = folder, [], None, {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def add_scalar(self, name, value, epoch):
        self.points.append((name, value, epoch))

    def add_hparams(self, parameters, metrics, run_name):
        self.hparams = (parameters, metrics)

    def add_text(self, name, text):
        self.texts[name] = text


runs = []


@pytest.fixture(autouse=True)
def _no_runs():
    runs.clear()


def test_tensorboard_has_a_run_for_each_trial(monkeypatch, tmp_path):
    """Curves by epoch, the setting and the metrics below the given folder; what is not finite is left out."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))

    log = tensorboard(tmp_path)
    log(DONE)
    log(FAILED)

    assert [run.folder for run in runs] == [str(tmp_path / "model_a-dropout-p=0.5-at-0-3-seed-1")] * 2
    assert (runs[0].points, runs[1].points) == (POINTS, [])
    assert runs[0].hparams == (PARAMETERS, {"test_error": 0.125, "seconds": 2.0})
    assert (runs[0].texts, runs[1].texts) == ({}, {"failure": "test_error: not finite"})


def test_mlflow_has_a_run_for_each_trial(monkeypatch):
    """The same, with the state of the trial; the tracking server is the one that is given."""
    calls = []

    def record(name):
        return lambda *args, **kwargs: calls.append((name, *args, *kwargs.values()))

    names = ["set_tracking_uri", "set_experiment", "start_run", "log_params", "log_metric", "log_metrics", "set_tag"]
    fake = SimpleNamespace(**{name: record(name) for name in [*names, "end_run"]})
    monkeypatch.setitem(sys.modules, "mlflow", fake)

    log = mlflow("http://127.0.0.1:5000")
    log(DONE)
    log(FAILED)

    assert calls[:3] == [
        ("set_tracking_uri", "http://127.0.0.1:5000"),
        ("set_experiment", "dropkit study"),
        ("start_run", str(TRIAL)),
    ]
    assert ("log_params", PARAMETERS) in calls
    assert [call[1:] for call in calls if call[0] == "log_metric"] == POINTS
    assert [call for call in calls if call[0] == "end_run"] == [("end_run", "FINISHED"), ("end_run", "FAILED")]


@pytest.mark.parametrize(
    ("tracker", "package"), [(tensorboard, "tensorboard"), (mlflow, "mlflow")], ids=["tensorboard", "mlflow"]
)
def test_a_missing_library_is_named_with_its_command(tracker, package, monkeypatch):
    """Before anything is trained."""
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(ImportError, match=f"{package} needs {package}: pip install {package}"):
        tracker("somewhere")
