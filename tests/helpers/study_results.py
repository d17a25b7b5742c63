"""Results of studies without training: numbers that follow from the trial."""

from dropkit.studies import Outcome, Plan, StudyResult
from dropkit.studies.evaluation import ERROR, RMSE
from dropkit.studies.plan import provenance
from dropkit.studies.setting import ablation, grid

NAN = float("nan")


def classification(trial):
    """Dropout helps by half its rate, in each seed by another amount."""
    rate = 0 if trial.setting.is_baseline else max(trial.setting.rates)
    error = 0.2 - 0.1 * rate + 0.01 * trial.seed + 0.003 * rate * trial.seed
    metrics = {"error": error, "nll": 3 * error, "ece": 0.05, "overconfidence": 0.04 - 0.1 * rate}
    measured = {
        f"{part}_{name}": value for part in ("training", "validation", "test") for name, value in metrics.items()
    }
    if rate:
        measured |= {f"mc_test_{name}": 0.9 * value for name, value in metrics.items()}
    return measured


def regression(trial):
    """Errors in thousands."""
    values = classification(trial)
    return {
        name.replace("error", "rmse").replace("nll", "mae"): 1e4 * value
        for name, value in values.items()
        if name.endswith(("error", "nll"))
    }


def a_result(models=("cnn", "mlp"), settings=None, seeds=3, metric=None, measure=classification, failed=(), command=""):
    """A result whose trials of `failed`, as (place among the settings, seed), failed."""
    settings = settings or grid(["dropout", "dropout2d"], [0.2, 0.5])
    metric = metric or (RMSE if measure is regression else ERROR)
    description = {"data": "digits", "recipe": {"epochs": 3}}
    plan = Plan(dict.fromkeys(models, settings), seeds, metric, None, description, provenance(command))
    curves = {"epoch": (1.0, 2.0), "training_loss": (1.0, 0.5), "validation_loss": (0.9, 0.7)}
    outcomes = []
    for trial in plan.trials:
        bad = (settings.index(trial.setting), trial.seed) in failed
        metrics = {**measure(trial), "test_nll": NAN} if bad else measure(trial)
        outcomes.append(Outcome(trial, metrics, curves, 1.5, "test_nll is not finite" if bad else None))
    return StudyResult(plan, tuple(outcomes))


SITES = ("features.3", "classifier.1", "classifier.4")
RESULTS = {
    "classification": a_result,
    "regression": lambda: a_result(measure=regression),
    "failed": lambda: a_result(failed=[(1, 0), (1, 2)]),
    "all seeds failed": lambda: a_result(failed=[(1, 0), (1, 1), (1, 2)]),
    "failed baseline": lambda: a_result(failed=[(0, 0)]),
    "one seed": lambda: a_result(seeds=1),
    "sites": lambda: a_result(settings=ablation("dropout", 0.5, SITES)),
    "long names": lambda: a_result(["a_network_with_a_long_name" * 3], ablation("dropout", 0.5, ("layer." * 20, "b"))),
    "nothing yet": lambda: StudyResult(a_result().plan, ()),
    "unfinished": lambda: StudyResult(a_result().plan, a_result().outcomes[:14]),
}
