"""Type checkers know what the public functions return, as users write them."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest

import dropkit
from dropkit import mc
from dropkit.mc.options import Options

# Each line that reveals a type says which; the others must have no errors.
PROGRAM = """
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import dropkit
import dropkit.nn
from dropkit.mc import MCClassifier, MCRegressor

model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(), nn.Linear(8, 3))
x, y = torch.randn(5, 4), torch.zeros(5, dtype=torch.long)


def predicted(loader: DataLoader[Tensor], task: str, std: bool) -> None:
    r = dropkit.mc.predict(model, x, samples=50, seed=0)
    reveal_type(r)  # ClassPrediction
    reveal_type(r.entropy)  # Tensor
    reveal_type(r.mean)  # Tensor
    reveal_type(r.standard_error["mutual_information"])  # Tensor
    reveal_type(dropkit.mc.predict(model, loader).label)  # Tensor
    reveal_type(dropkit.mc.predict(model, {"x": x}, 50, "classification", plan="iid", class_dim=-1))  # ClassPrediction
    reveal_type(r.report(y).ece)  # float
    reveal_type(r.ood(r).auroc)  # float
    reveal_type(r.notes)  # tuple[str, ...]
    values = dropkit.mc.predict(model, x, task="regression", keep_samples=True, masks="shared")
    reveal_type(values)  # ValuePrediction
    reveal_type(dropkit.mc.predict(model, x, 50, "regression"))  # ValuePrediction
    reveal_type(values.fit_tau(x))  # float
    reveal_type(values.interval(0.95, 1.0))  # tuple[Tensor, Tensor]
    labels = dropkit.mc.predict(model, x, task="multilabel", outputs="probabilities")
    reveal_type(labels)  # MultilabelPrediction
    reveal_type(labels.as_classes())  # ClassPrediction
    reveal_type(dropkit.mc.predict(model, x, 50, "multilabel", p=0.5, sites="1"))  # MultilabelPrediction
    noisy = dropkit.mc.predict(model, x, task="regression", outputs="mean_log_variance", class_dim=1)
    reveal_type(noisy.total_variance)  # Tensor
    heads = dropkit.mc.predict(model, x, task={"age": "regression", "kind": "classification"}, valid=x > 0)
    reveal_type(heads)  # dict[Any, ClassPrediction | MultilabelPrediction | ValuePrediction]
    reveal_type(dropkit.mc.predict(model, x, task=task))  # ClassPrediction | MultilabelPrediction | ValuePrediction
    reveal_type(dropkit.mc.predict(model, x, 50, task).mean)  # Tensor
    reveal_type(dropkit.mc.from_samples(x))  # ClassPrediction
    reveal_type(dropkit.mc.acquisition.bald(r))  # Tensor
    reveal_type(dropkit.mc.acquisition.batch_bald(r, 2))  # Tensor
    reveal_type(dropkit.mc.metrics.ood(r, r).fpr95)  # float
    with dropkit.mc.sampling():
        model(x)
    reveal_type(MCClassifier(epochs=2).fit(x, y).predict_mc(x))  # ClassPrediction | MultilabelPrediction
    regressor = MCRegressor(epochs=2).fit(x, y)
    reveal_type(regressor.predict_mc(x))  # ValuePrediction
    mean = regressor.predict(x)
    mean.sum()
    mean, deviation = regressor.predict(x, return_std=True)
    deviation.sum()
    reveal_type(len(regressor.predict(x, std)))  # int
    dropkit.mc.predict(model, x, sampels=5)  # error
    dropkit.mc.predict(model, x, masks="all")  # error


def others(key: Tensor) -> None:
    report = dropkit.audit(model, x)
    reveal_type(report.findings[0].code)  # str
    reveal_type(report.table())  # str
    reveal_type([site.name for site in report.sites])  # list[str]
    reveal_type(dropkit.functional.dropout(x, 0.5, training=True))  # Tensor
    reveal_type(dropkit.functional.dropout2d(x, key=key))  # Tensor
    reveal_type(dropkit.functional.dropout_add(x, x, 0.1))  # Tensor
    reveal_type(dropkit.nn.Dropout(0.5))  # Dropout
    reveal_type(dropkit.nn.Dropout(0.5, noise_shape=(None, 1)))  # Dropout
    reveal_type(dropkit.functional.dropout(x, 0.1, noise_shape=x.shape))  # Tensor
    dropkit.functional.dropout(x, 0.1, noise_shape=1)  # error
    reveal_type(dropkit.nn.DropPath(0.5, scale_by_keep=False))  # DropPath
    reveal_type(dropkit.functional.drop_path(x, 0.1, scale_by_keep=False))  # Tensor
    reveal_type(dropkit.functional.patch_dropout(x))  # Tensor
    reveal_type(dropkit.functional.patch_dropout(x, return_indices=True))  # tuple[Tensor, Tensor | None]
    reveal_type(dropkit.nn.Dropout2d(0.1).p)  # float
    schedule = dropkit.schedules.RateSchedule(model, lambda step: 0.9**step, sites=["1"])
    reveal_type(schedule.get_last_rate())  # dict[str, float]
    reveal_type([site.rate for site in schedule.sites])  # list[float]
"""


@pytest.fixture(scope="module")
def diagnostics(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    """The diagnostics of one run of pyright in strict mode, which takes seconds."""
    pyright = pytest.importorskip("pyright")
    folder = tmp_path_factory.mktemp("types")
    (folder / "program.py").write_text(PROGRAM)
    page = (Path(__file__).parents[1] / "docs" / "audit.md").read_text()
    (folder / "page.py").write_text(
        "# pyright: basic\n" + "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    )
    settings = {"typeCheckingMode": "strict", "extraPaths": [str(Path(dropkit.__file__).parents[1])]}
    # torch's stubs are partial.
    settings |= dict.fromkeys(["reportUnknownMemberType", "reportUnknownVariableType", "reportUnusedExpression"], False)
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    process = pyright.run(
        "--outputjson", "--pythonpath", sys.executable, "-p", str(folder), stdout=subprocess.PIPE, env=dict(os.environ)
    )
    return json.loads(process.stdout)["generalDiagnostics"]


@pytest.mark.slow
def test_type_checkers_know_what_is_returned(diagnostics: list[dict[str, object]]) -> None:
    """Each documented use is without an error, and its type is the one in the comment."""
    lines = PROGRAM.split("\n")
    wanted = {number: line.partition("  # ")[2] for number, line in enumerate(lines) if "  # " in line}

    types: dict[int, str] = {}
    diagnostics = [entry for entry in diagnostics if Path(str(entry["file"])).name == "program.py"]
    for entry in diagnostics:
        revealed = re.search(r'is "(.*)"$', str(entry["message"]))
        number = entry["range"]["start"]["line"]  # type: ignore[index]
        types[number] = revealed[1] if entry["severity"] == "information" and revealed else str(entry["severity"])

    assert types == wanted, "\n".join(f"{entry['range']['start']['line']}: {entry['message']}" for entry in diagnostics)  # type: ignore[index]


@pytest.mark.slow
def test_the_code_in_docs_audit_passes_a_type_checker(diagnostics: list[dict[str, object]]) -> None:
    """The examples of the page have no errors."""
    assert [entry["message"] for entry in diagnostics if Path(str(entry["file"])).name == "page.py"] == []


def test_the_options_of_type_checkers_are_those_of_predict() -> None:
    """Both have the same keywords with the same types."""
    parameters = inspect.signature(mc.predict).parameters.values()
    keywords = [parameter for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]

    assert {keyword.name: keyword.annotation for keyword in keywords} == {
        name: hint.__forward_arg__ for name, hint in Options.__annotations__.items()
    }
    assert get_type_hints(Options).keys() == {keyword.name for keyword in keywords}
