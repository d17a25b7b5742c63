"""predict: tasks, heads, padding, noise that the model returns, and kinds of inputs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from dropkit.mc import ClassPrediction, MultilabelPrediction, ValuePrediction, predict
from dropkit.mc.measures import binary_entropy

X = torch.randn(14, 8, generator=torch.Generator().manual_seed(0))
TOKENS = torch.randn(14, 6, 8, generator=torch.Generator().manual_seed(1))
T = 12


class Net(nn.Module):
    """A perceptron behind which a function makes what the model returns."""

    def __init__(self, function: Any = lambda h: h, outputs: int = 4, p: float = 0.4) -> None:
        super().__init__()
        self.function = function
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.first, self.drop = nn.Linear(8, 16), nn.Dropout(p)
            self.hidden, self.last_drop, self.last = nn.Linear(16, 16), nn.Dropout(p), nn.Linear(16, outputs)

    def forward(self, x: Tensor, **others: Tensor) -> Any:
        h = self.drop(F.relu(self.first(x)))
        return self.function(self.last(self.last_drop(F.relu(self.hidden(h)))))


def run(model: nn.Module, x: Any = X, **settings: Any) -> Any:
    return predict(model.eval(), x, T, **{"seed": 1, "progress": False, **settings})


def close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, atol=1e-5, equal_nan=True)


# Labels of which several may be true


@pytest.mark.parametrize("outputs", ["logits", "probabilities"])
@pytest.mark.parametrize("x", [X, TOKENS], ids=["inputs", "tokens"])
def test_each_label_is_a_choice_of_two_classes(x: Tensor, outputs: str) -> None:
    """Every measure is that of the samples' probabilities, each label for itself."""
    model = Net(torch.sigmoid if outputs == "probabilities" else lambda h: h)

    r = run(model, x, task="multilabel", outputs=outputs, keep_samples=True)

    assert isinstance(r, MultilabelPrediction)
    p = r.samples.double()
    expected = {
        "mean": p.mean(0),
        "variance": p.var(0),
        "entropy": binary_entropy(p.mean(0)),
        "expected_entropy": binary_entropy(p).mean(0),
        "variation_ratio": torch.minimum((p > 0.5).double().mean(0), (p <= 0.5).double().mean(0)),
        "confidence": torch.maximum(p.mean(0), 1 - p.mean(0)),
    }
    expected["mutual_information"] = expected["entropy"] - expected["expected_entropy"]
    for name, value in expected.items():
        assert close(getattr(r, name).double(), value), name
    assert torch.equal(r.label, (r.mean > 0.5).long())


def test_two_classes_and_one_label_agree() -> None:
    """A classification with one logit for each label has the same measures and errors."""
    labels = run(Net(), task="multilabel")
    classes = run(Net(), output=lambda y: y.unsqueeze(-1), class_dim=-1)

    assert close(labels.as_classes().mean, classes.mean)
    for name in ("entropy", "mutual_information", "variation_ratio", "mutual_information_jackknife"):
        assert close(getattr(labels, name), getattr(classes, name))
        if name in labels.standard_error:
            assert torch.allclose(labels.standard_error[name], classes.standard_error[name], rtol=1e-2, atol=1e-5)


def test_labels_have_a_report() -> None:
    """Its error is the fraction of labels that are decided wrongly."""
    r = run(Net(), task="multilabel")
    y = torch.randint(2, (14, 4), generator=torch.Generator().manual_seed(2))

    assert r.report(y).error == pytest.approx((r.label != y).double().mean().item())
    assert r.report(y.float()).nll == pytest.approx(F.binary_cross_entropy(r.mean, y.float()).item(), rel=1e-4)


@pytest.mark.parametrize(
    ("function", "outputs", "message"),
    [
        (lambda h: h.softmax(1), "logits", 'several may be true, got a softmax, of which one is: give task="class'),
        (lambda h: h.sigmoid(), "logits", 'outputs must be "probabilities" where the model returns them'),
        (lambda h: h, "probabilities", 'outputs must be "logits" where they are no probabilities'),
    ],
)
def test_outputs_that_are_clearly_no_labels_are_refused(function: Any, outputs: str, message: str) -> None:
    """A sigmoid of sigmoids, or labels that exclude each other, would look like a result."""
    with pytest.raises(ValueError, match=message):
        run(Net(function), task="multilabel", outputs=outputs)


# Noise that the model returns


SPREADS: dict[str, Any] = {
    "tuple": lambda h: (h[:, :2], h[:, 2:]),
    "mapping": lambda h: {"mean": h[:, :2], "log_var": h[:, 2:]},
    "tensor": lambda h: h,
    "distribution": lambda h: torch.distributions.Normal(h[:, :2], (h[:, 2:] / 2).exp()),
}


@pytest.mark.parametrize("name", SPREADS)
def test_variances_that_the_model_returns_are_aleatoric(name: str) -> None:
    """Total variance is that between the means and the mean of the variances."""
    r = run(Net(SPREADS[name]), task="regression", outputs="mean_log_variance", keep_samples=True)
    both = run(Net(), task="regression", keep_samples=True).samples.double()

    assert isinstance(r, ValuePrediction)
    assert close(r.mean.double(), both[..., :2].mean(0))
    assert close(r.epistemic_variance.double(), both[..., :2].var(0))
    assert close(r.aleatoric_variance.double(), both[..., 2:].exp().mean(0))
    assert close(r.total_variance, r.variance + r.aleatoric_variance)
    assert r.standard_error["aleatoric_variance"].shape == (14, 2)


def test_forms_of_the_same_noise_agree() -> None:
    """A log variance, a variance and a standard deviation."""
    functions = {"mean_log_variance": lambda s: s, "mean_variance": torch.exp, "mean_std": lambda s: (s / 2).exp()}

    first, *others = [
        run(Net(lambda h, f=f: (h[:, :2], f(h[:, 2:]))), task="regression", outputs=form).total_variance
        for form, f in functions.items()
    ]

    assert all(close(first, other) for other in others)


def test_a_model_without_noise_says_what_it_needs() -> None:
    """A variance that was not computed is no number."""
    r = run(Net(), task="regression")

    with pytest.raises(AttributeError, match='aleatoric_variance was not computed: it needs outputs="mean_log'):
        _ = r.aleatoric_variance
    with pytest.raises(ValueError, match='outputs must be "mean_log_variance" where the variance is not positive'):
        run(Net(lambda h: (h, h)), task="regression", outputs="mean_variance")
    with pytest.raises(TypeError, match=r'two tensors of one shape for outputs="mean_std".*got \(14, 3\)'):
        run(Net(outputs=3), task="regression", outputs="mean_std")


# Several heads


HEADS: dict[str, Any] = {
    "mapping": (("age", "kind"), lambda h: {"age": h[:, :1], "kind": h[:, 1:]}),
    "tuple": ((0, 1), lambda h: (h[:, :1], h[:, 1:])),
    "list": ((0, -1), lambda h: [h[:, :1], h[:, 1:]]),
}


@pytest.mark.parametrize("name", HEADS)
def test_heads_are_predicted_by_the_same_passes(name: str) -> None:
    """Each is as if it were predicted alone, and the model runs as often as for one."""
    (first, second), function = HEADS[name]
    passes = []
    model = Net(lambda h: passes.append(1) or function(h))

    r = run(model, task={first: "regression", second: "classification"}, labels={second: torch.zeros(14).long()})

    count = len(passes)
    alone = run(model, output=lambda y: y[second])
    assert count == len(passes) - count
    assert close(r[second].mean, alone.mean)
    assert close(r[first].mean, run(model, task="regression", output=lambda y: y[first]).mean)
    assert isinstance(r[first], ValuePrediction)
    assert isinstance(r[second], ClassPrediction)


def test_options_may_differ_between_heads() -> None:
    """Form, dimension and labels are given by name."""
    model = Net(lambda h: {"tags": h.sigmoid(), "pixels": h[:, :, None], "noise": (h[:, 0], h[:, 1])})
    task = {"tags": "multilabel", "pixels": "classification", "noise": "regression"}
    outputs = {"tags": "probabilities", "noise": "mean_log_variance"}

    r = run(model, task=task, outputs=outputs, class_dim={"pixels": 1})

    assert close(r["tags"].mean, run(Net(), task="multilabel").mean)
    assert r["pixels"].mean.shape == (14, 1, 4)
    assert r["noise"].total_variance.shape == (14,)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"b": "regression"}, "task must name what the model returns, got 'b' for a dict with a"),
        ({0: "regression"}, "task must name what the model returns, got 0 for a dict with 0 items"),
    ],
)
def test_a_head_that_does_not_exist_is_refused(task: Any, message: str) -> None:
    """The error names those that the model returns."""
    with pytest.raises(TypeError, match=message):
        run(Net(lambda h: {"a": h}), task=task)


def test_wrong_heads_are_refused_before_anything_runs() -> None:
    """No heads, tasks that do not exist, and options of other heads."""
    model = Net(lambda h: pytest.fail("it ran"))

    for settings, message in (
        ({"task": {}}, "task must be of at least one head"),
        ({"task": {"a": "ranking"}}, 'task must be "classification", "multilabel" or "regression" for each name'),
        ({"task": {"a": "regression"}, "outputs": {"b": "values"}}, "outputs must be by the names in task, got 'b'"),
        ({"class_dim": {"a": 1}}, "class_dim must be by the names in task, got 'a'"),
    ):
        with pytest.raises(ValueError, match=message):
            run(model, **settings)


# Padding


def test_labels_to_ignore_are_nan_in_every_measure() -> None:
    """Everywhere else the results are the same, bit for bit; `label` has torch's number for them."""
    y = torch.zeros(14, 6, dtype=torch.long)
    y[3, 4:] = -100
    other = y.where(y >= 0, 255)

    whole, part = run(Net(), TOKENS, class_dim=-1), run(Net(), TOKENS, labels=y, keep_samples=True)
    named = run(Net(), TOKENS, labels=other, ignore_index=255, batch_size=5)

    assert torch.equal(part.valid, y == 0)
    assert part.mean[3, 4:].isnan().all()
    assert part.entropy[3, 4:].isnan().all()
    assert part.samples[:, 3, 4:].isnan().all()
    assert torch.equal(part.mean[y == 0], whole.mean[y == 0])
    assert torch.equal(part.entropy[y == 0], whole.entropy[y == 0])
    assert part.label[3, 4:].tolist() == [-100, -100]
    assert close(named.entropy, part.entropy)


MASK = torch.arange(6) < torch.arange(14)[:, None] % 5 + 2


@pytest.mark.parametrize("how", ["attention_mask", "padding mask", "named", "tensor", "function"])
def test_a_mask_tells_padding(how: str) -> None:
    """Of the model's arguments, which `predict` knows or the user names, or the user's own."""
    named = {"attention_mask": MASK.long(), "src_key_padding_mask": ~MASK, "mask": MASK}
    name = {"attention_mask": "attention_mask", "padding mask": "src_key_padding_mask"}.get(how, "mask")
    valid = {"named": "mask", "tensor": MASK, "function": lambda x, mask: mask}.get(how)

    r = run(Net(), {"x": TOKENS, name: named[name]}, class_dim=-1, valid=valid, batch_size=5)
    values = run(Net(), {"x": TOKENS, name: named[name]}, task="regression", valid=valid, batch_size=5)

    assert torch.equal(r.valid, MASK)
    assert torch.equal(r.entropy.isnan(), ~MASK)
    assert torch.equal(values.variance.isnan(), ~MASK[..., None].expand(-1, -1, 4))
    kept = run(Net(), {"x": TOKENS, name: named[name]}, class_dim=-1, valid=False)
    assert kept.valid is None
    assert not kept.entropy.isnan().any()


def test_a_mask_of_another_shape_is_refused() -> None:
    """It would mark other places."""
    with pytest.raises(ValueError, match=r"valid must be of shape \(14, 6\), or its first dimensions, got \(14, 5\)"):
        run(Net(), TOKENS, class_dim=-1, valid=MASK[:, :5])
    with pytest.raises(ValueError, match="valid must be an argument, of x, got mask"):
        run(Net(), {"x": TOKENS}, class_dim=-1, valid="mask")


def test_padding_does_not_change_how_many_samples_are_taken() -> None:
    """A place that does not count has no standard error to reach."""
    x = TOKENS.clone()
    x[~MASK] *= 100

    def most(valid: Any) -> int:
        settings = {"target_standard_error": 0.2, "valid": valid, "seed": 1}
        return int(predict(Net().eval(), x, 200, "regression", **settings).sample_counts.max())

    assert most(MASK) < 200
    assert most(False) == 200


@pytest.mark.parametrize("task", ["classification", "regression", "multilabel"])
def test_batches_of_different_length_are_padded(task: str) -> None:
    """Each batch has the results that it has alone, then nan; the work of all is kept."""
    parts = [TOKENS[:5, :3], TOKENS[5:9], TOKENS[9:, :4]]
    settings = {"task": task, "class_dim": -1 if task == "classification" else None, "keep_samples": True}

    r = run(Net(), parts, **settings)

    assert r.mean.shape == (14, 6, 4)
    assert r.samples.shape == (T, 14, 6, 4)
    assert len(r.plain) == 14
    for part, rows in zip(parts, (slice(0, 5), slice(5, 9), slice(9, 14)), strict=True):
        alone = run(Net(), part, example_ids=torch.arange(14)[rows], **settings)
        length = part.shape[1]
        assert close(r.mean[rows, :length], alone.mean)
        assert close(r.samples[:, rows, :length], alone.samples)
        assert r.mean[rows, length:].isnan().all()
        assert r.valid[rows, :length].all()
        assert not r.valid[rows, length:].any()


def test_batches_that_cannot_be_joined_are_refused_early() -> None:
    """Other numbers of classes, or of dimensions, show in the second batch, and not after the last."""
    seen = []

    def batches(*parts: Tensor) -> Any:
        for part in parts:
            seen.append(1)
            yield part

    with pytest.raises(ValueError, match=r"class_dim must be a dimension of the same size .* 3 classes .* and 6"):
        run(Net(lambda h: h[..., 0]), batches(TOKENS[:, :3], TOKENS, TOKENS), output=lambda y: y)
    assert len(seen) == 2
    with pytest.raises(ValueError, match="as many dimensions for every batch, got 2 and 3"):
        run(Net(), [X, TOKENS, X], task="regression")


# Kinds of inputs


KINDS: dict[str, Any] = {
    "float64 array": lambda: X.double().numpy(),
    "array of another layout": lambda: np.asfortranarray(X.double().numpy())[::-1][::-1],
    "frame": lambda: pd.DataFrame(X.double().numpy(), columns=list("abcdefgh")),
    "frame of objects": lambda: pd.DataFrame(X.double().numpy()).astype(object),
    "mapping of arrays": lambda: {"x": X.double().numpy()},
    "data set": lambda: TensorDataset(X, torch.zeros(14).long()),
    "data set of arrays": lambda: [(row, 0) for row in X.double().numpy()],
    "loader": lambda: DataLoader(TensorDataset(X), batch_size=5),
    "loader of dicts": lambda: DataLoader([{"x": row, "labels": 0} for row in X], batch_size=5),
}


class Rows(torch.utils.data.Dataset[Any]):
    """A data set with the items of a list."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __getitem__(self, index: int) -> Any:
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)


@pytest.mark.parametrize("name", KINDS)
def test_kinds_of_inputs_have_the_same_result(name: str) -> None:
    """That of the tensor; and torch's generator is left alone."""
    x = Rows(KINDS[name]()) if name == "data set of arrays" else KINDS[name]()
    state = torch.get_rng_state()

    r = run(Net(), x, batch_size=5)

    assert close(r.mean, run(Net()).mean)
    # A loader of the user draws a seed from it.
    assert "loader" in name or torch.equal(state, torch.get_rng_state())


def test_a_model_of_float64_gets_float64() -> None:
    """Arrays follow the model, and tensors stay as they are."""
    model = Net().double()

    assert run(model, X.double().numpy()).mean.shape == run(model, X.double()).mean.shape == (14, 4)


def test_a_column_that_is_no_number_is_refused() -> None:
    """The error names it."""
    frame = pd.DataFrame({"size": [1.0, 2.0], "city": ["Bonn", "Rom"]})

    with pytest.raises(TypeError, match=r"inputs must hold numbers, got column 'city' of .*; encode it first"):
        run(Net(), frame)


class SequenceFirst(nn.Module):
    """A recurrent network with sequence-first inputs, and a head for each sequence or step."""

    def __init__(self, steps: bool) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(4)
            self.inner, self.drop, self.head = nn.LSTM(8, 8, 2, dropout=0.3), nn.Dropout(), nn.Linear(8, 3)
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        out = self.head(self.drop(self.inner(x)[0]))
        return out if self.steps else out[-1]


@pytest.mark.parametrize("count", [14, 6, 1])
@pytest.mark.parametrize("steps", [True, False])
def test_sequence_first_models_have_results_with_the_inputs_first(steps: bool, count: int) -> None:
    """As a model has that transposes by itself, also where there are as many inputs as steps."""
    x = TOKENS[:count].transpose(0, 1)
    inner = SequenceFirst(steps)

    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            out = inner(x.transpose(0, 1))
            return out.transpose(0, 1) if steps else out

    settings = {"class_dim": -1, "keep_samples": True}
    expected = run(Around(), TOKENS[:count], **settings).samples

    for inputs in (x, [x]):
        assert close(run(inner, inputs, batch_dim=1, **settings).samples, expected)
    assert close(run(inner, {"x": x}, batch_dim={"x": 1}, batch_size=4, **settings).samples, expected)


def test_a_wrong_batch_dim_is_refused() -> None:
    """A dimension that inputs do not have; and the first dimension of a sequence-first model gets a hint."""
    with pytest.raises(ValueError, match=r"batch_dim must be a dimension of the inputs, \(14, 8\), got 2"):
        run(Net(), batch_dim=2)
    with pytest.raises(ValueError, match="batch_dim must be by argument, of 'x', got 'y'"):
        run(Net(), {"x": X}, batch_dim={"y": 1})
    with pytest.raises(ValueError, match=r"one row for each of 6 inputs, got shape \(14, 3\); give batch_dim=1"):
        run(SequenceFirst(False), TOKENS.transpose(0, 1))


def test_answers_are_spans_of_positions() -> None:
    """`start_logits` and `end_logits` are classes of positions; those of shorter texts are padded with 0."""
    model = Net(lambda h: {"start_logits": h[..., 0], "end_logits": h[..., 1]})

    r = run(model, [TOKENS[:7], TOKENS[7:, :4]])

    start = run(Net(lambda h: h[..., 0]), TOKENS, output=lambda y: y)
    assert r.mean.shape == (14, 2, 6)
    assert torch.allclose(r.mean.sum(-1), torch.ones(14, 2))
    assert close(r.mean[:7, 0], start.mean[:7])
    assert math.isclose(float(r.mean[7:, :, 4:].abs().sum()), 0.0)


def test_reports_leave_padding_out() -> None:
    """Every number is that of the labels that count, as if each were an input of its own."""
    y = torch.arange(84).view(14, 6) % 4
    y[~MASK] = -100
    r = run(Net(), TOKENS, labels=y)
    rows = run(Net(), TOKENS, class_dim=-1)

    report = r.report(y)

    p, true = rows.mean[MASK], y[MASK]
    assert report.count == int(MASK.sum())
    assert report.error == pytest.approx((p.argmax(-1) != true).double().mean().item())
    assert report.nll == pytest.approx(F.nll_loss(p.log(), true).item(), rel=1e-5)
    assert report.comparison is not None
    assert rows.report(y).ece == pytest.approx(report.ece)


def test_reports_of_values_leave_padding_out() -> None:
    """The error and the likelihood are those of the values that count."""
    y = torch.randn(14, 6, 4, generator=torch.Generator().manual_seed(5))
    settings = {"task": "regression", "keep_samples": True}
    r, whole = run(Net(), TOKENS, valid=MASK, **settings), run(Net(), TOKENS, **settings)

    report = r.report(y, 2.0)

    assert report.rmse == pytest.approx((whole.mean - y)[MASK.bool()].square().mean().sqrt().item(), rel=1e-5)
    parts = [run(Net(), TOKENS[i : i + 1, : int(MASK[i].sum())], example_ids=[i], **settings) for i in range(14)]
    alone = [part.report(y[i : i + 1, : part.mean.shape[1]], 2.0).log_likelihood for i, part in enumerate(parts)]
    assert report.log_likelihood == pytest.approx(sum(alone) / 14, rel=1e-4)
    assert r.fit_tau(y) > 0


def test_reports_use_the_noise_that_the_model_predicts() -> None:
    """The likelihood of a normal distribution with the total variance, and its intervals."""
    r = run(Net(), task="regression", outputs="mean_log_variance")
    y = torch.randn(14, 2, generator=torch.Generator().manual_seed(5))

    report = r.report(y)

    total = torch.distributions.Normal(r.mean, r.total_variance.sqrt())
    assert report.log_likelihood == pytest.approx(total.log_prob(y).sum(1).mean().item(), rel=1e-5)
    low, high = r.interval(0.9)
    assert torch.allclose(high - low, 2 * 1.6448536 * r.total_variance.sqrt(), rtol=1e-5)
    with pytest.raises(ValueError, match="tau must be given, as the model predicts no noise"):
        run(Net(), task="regression", keep_samples=True).report(torch.zeros(14, 4))
