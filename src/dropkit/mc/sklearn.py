"""MCClassifier, MCRegressor: scikit-learn estimators that predict the mean of many passes with dropout active.

Source: Gal, Ghahramani, "Dropout as a Bayesian Approximation: Representing Model Uncertainty in Deep Learning", ICML
2016, arXiv:1506.02142.
"""
# ruff: noqa: N803 (scikit-learn's X)

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace
from numbers import Real
from typing import Any, Literal, cast, overload

import numpy as np
import torch
from torch import Tensor, nn

from dropkit.arguments import check
from dropkit.mc.measures import measures_of
from dropkit.mc.prediction import ClassPrediction, MultilabelPrediction, ValuePrediction
from dropkit.mc.sklearn_base import (
    Array,
    ClassifierMixin,
    Network,
    RegressorMixin,
    StandardScaler,
    column_or_1d,  # pyright: ignore[reportUnknownVariableType] (untyped)
    columns,
)
from dropkit.public_names import public_names

__all__ = ["MCClassifier", "MCRegressor"]

# A regressor fits the precision of the noise to a fifth of the rows, but to no fewer than this where there are more.
_HELD_OUT, _FEWEST_HELD_OUT = 0.2, 5


class MCClassifier(ClassifierMixin, Network):
    """A classifier with dropout that predicts the mean class probabilities of many passes.

    Trained by Adam on the cross entropy, on the CPU, with inputs standardised: each feature has mean 0 and variance 1
    over the training rows. Equal `random_state` give equal bits; torch's generator is left as it was.

    `y` holds a class for each row, or is (N, labels) of 0 and 1, where several labels may be true: then each label is
    trained by the binary cross entropy. Sparse rows become dense.

    Args:
        module: makes the network from the numbers of its inputs and outputs, which are logits; then `hidden` and `p`
            are ignored. If None, a perceptron with `dropkit.nn.Dropout` after each hidden layer.
        hidden: widths of the hidden layers.
        p: expected fraction of hidden units dropped, in (0, 1).
        epochs: passes over the training rows.
        lr: learning rate.
        batch_size: rows in a step of the optimizer.
        weight_decay: L2 penalty of all parameters.
        samples: passes for each prediction.
        masks: which rows share the masks of a pass, as for `predict`. If None, "shared": the prediction for a row does
            not depend on the other rows.
        plan: "iid" or "stratified", as for `predict`.
        random_state: a seed, a `numpy.random.RandomState`, or None for numpy's own.

    Attributes:
        classes_: the classes, sorted.
        network_: the trained network, in eval mode; its inputs are standardised.
        input_scaler_: the `StandardScaler` of the inputs.
        seed_: the seed of the training and of the passes.
        n_features_in_: how many columns X has.

    Example:
        >>> X, y = [[0.0], [0.1], [0.9], [1.0]], ["no", "no", "yes", "yes"]
        >>> model = MCClassifier(epochs=20, random_state=0).fit(X, y)
        >>> model.predict([[0.0], [1.0]]).tolist()
        ['no', 'yes']
        >>> model.predict_mc([[0.5]]).mutual_information.shape
        torch.Size([1])
    """

    def fit(self, X: Any, y: Any) -> MCClassifier:
        """Train a new network.

        Raises:
            ValueError: a parameter is out of range, or `y` holds fewer than two classes.
        """
        rows, labels = cast("tuple[Array, Any]", self._validated(X, y, multi_output=True))
        self._is_multilabel = self._kind_of_classes(labels) == "multilabel-indicator"
        self.classes_: Array
        if self._is_multilabel:
            indicators = cast("Array", labels.toarray() if hasattr(labels, "toarray") else labels)
            self.classes_ = cast("Array", np.arange(indicators.shape[1]))
            targets = torch.from_numpy(indicators.astype(np.float32))
            loss = nn.functional.binary_cross_entropy_with_logits
        else:
            column = cast("Array", column_or_1d(labels, warn=True))
            self.classes_, indices = cast("tuple[Array, Array]", np.unique(column, return_inverse=True))
            check("y", len(self.classes_) >= 2, "of two classes at least", f"{len(self.classes_)} class")
            targets, loss = torch.from_numpy(indices.astype(np.int64)), nn.functional.cross_entropy
        self.network_: nn.Module = self._trained(self._begin(rows), targets, len(self.classes_), loss)
        return self

    def __sklearn_tags__(self) -> Any:
        tags = cast("Any", super()).__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def predict(self, X: Any) -> Array:
        """Predict the likeliest class of each row, (N,), or for each label 1 if it is likelier true, (N, labels)."""
        label = self.predict_mc(X).label.numpy()
        return label if self._is_multilabel else self.classes_[label]

    def predict_proba(self, X: Any) -> Array:
        """Predict the mean probability of each class, or of each label, (N, classes), in the order of `classes_`."""
        return self.predict_mc(X).mean.double().numpy()

    def predict_mc(self, X: Any, keep_samples: bool = False) -> ClassPrediction | MultilabelPrediction:
        """Predict probabilities with their uncertainty; classes are numbers, indices into `classes_`."""
        inputs = self._checked_inputs(X)
        task = "multilabel" if self._is_multilabel else "classification"
        return cast("ClassPrediction | MultilabelPrediction", self._passes(self.network_, inputs, task, keep_samples))


@dataclass(eq=False, repr=False)
class MCRegressor(RegressorMixin, Network):
    """A regressor with dropout that predicts the mean of many passes, and the deviation of passes and noise together.

    Like `MCClassifier`, with the squared error, and with targets standardised for the training. `y` is (N,), or
    (N, outputs) for several values of each row, which one network predicts together.

    Args:
        module, hidden, p, epochs, lr, batch_size, weight_decay, samples, masks, plan, random_state: as for
            `MCClassifier`; the network has as many outputs as `y`.
        tau: the precision of the observation noise, 1 / variance, in the units of y. "fit" for the likeliest of each
            output on a fifth of the rows, shuffled, under a network that is trained without them; `network_` is then
            trained on all rows. That takes about twice as long.

    Attributes:
        tau_: the precision of the noise; (outputs,) if `y` has two dimensions.
        network_: the trained network, in eval mode; its inputs and outputs are standardised.
        input_scaler_, target_scaler_: the `StandardScaler` of each.
        seed_, n_features_in_: as for `MCClassifier`.

    Example:
        >>> X = [[0.0], [0.25], [0.5], [0.75], [1.0]]
        >>> model = MCRegressor(epochs=20, random_state=0).fit(X, [0.0, 0.5, 1.0, 1.5, 2.0])
        >>> mean, std = model.predict(X, return_std=True)
        >>> mean.shape, bool((std > 0).all())
        ((5,), True)
    """

    _: KW_ONLY
    tau: float | Literal["fit"] = "fit"

    def fit(self, X: Any, y: Any) -> MCRegressor:
        """Train a new network, or two.

        Raises:
            ValueError: a parameter is out of range.
        """
        rows, values = cast("tuple[Array, Array]", self._validated(X, y, y_numeric=True, multi_output=True))
        tau: Any = self.tau
        is_given = isinstance(tau, Real) and 0 < float(tau) < math.inf
        check("tau", is_given or tau == "fit", 'larger than 0 and finite, or "fit"', tau)
        check("samples", self.samples != 1, "at least 2, to have a variance", self.samples)
        inputs, self._is_column = self._begin(rows), values.ndim == 1
        columns = values.astype(np.float64).reshape(len(values), -1)
        self.target_scaler_: Any = StandardScaler().fit(columns)
        targets = torch.from_numpy(self.target_scaler_.transform(columns).astype(np.float32))
        noise = (
            np.full(targets.shape[1], tau) if is_given else self._fit_tau(inputs, targets) / self._scale.numpy() ** 2
        )
        self.tau_: float | Array = float(noise[0]) if self._is_column else noise
        self.network_: nn.Module = self._trained(inputs, targets, targets.shape[1], _squared_error)
        return self

    def __sklearn_tags__(self) -> Any:
        tags = cast("Any", super()).__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    @overload
    def predict(self, X: Any, return_std: Literal[False] = False) -> Array: ...
    @overload
    def predict(self, X: Any, return_std: Literal[True]) -> tuple[Array, Array]: ...
    @overload
    def predict(self, X: Any, return_std: bool) -> Array | tuple[Array, Array]: ...
    def predict(self, X: Any, return_std: bool = False) -> Array | tuple[Array, Array]:
        """Predict the mean of each value, like `y`; with `return_std` also its standard deviation, noise included."""
        inputs = self._checked_inputs(X)
        r = self._standardised(self.network_, inputs, keep_samples=False)
        mean: Array = self.target_scaler_.inverse_transform(r.mean.double().numpy())
        std = np.sqrt(r.variance.double().numpy() * self._scale.numpy() ** 2 + 1 / self.tau_)
        if self._is_column:
            mean, std = mean[:, 0], std[:, 0]
        return (mean, std) if return_std else mean

    def predict_mc(self, X: Any, keep_samples: bool = False) -> ValuePrediction:
        """Predict values with their uncertainty, in the units of y; the variance is that of the passes alone."""
        inputs = self._checked_inputs(X)
        r = self._standardised(self.network_, inputs, keep_samples)
        scale, shift = self._scale, torch.from_numpy(self.target_scaler_.mean_)

        def of_columns(value: Tensor) -> Tensor:
            return value.squeeze(-1).float() if self._is_column else value.float()

        def in_units(value: Tensor | None) -> Tensor | None:
            return None if value is None else of_columns(value * scale + shift)

        measures, errors = _rescaled(r.measures, scale, shift), _rescaled(r.standard_error, scale, None)
        return replace(
            r,
            measures={name: of_columns(value) for name, value in measures.items()},
            standard_error={name: of_columns(value) for name, value in errors.items()},
            samples=in_units(r.samples),
            plain=in_units(r.plain),
        )

    @property
    def _scale(self) -> Tensor:
        """The standard deviation of each output over the training rows, (outputs,), float64."""
        return torch.from_numpy(self.target_scaler_.scale_)

    def _standardised(self, network: nn.Module, inputs: Tensor, keep_samples: bool) -> ValuePrediction:
        """The prediction in standard units, (N, outputs)."""
        return cast("ValuePrediction", self._passes(network, inputs, "regression", keep_samples, output=self._columns))

    def _columns(self, outputs: Tensor) -> Tensor:
        return columns(outputs, len(self._scale))

    def _fit_tau(self, inputs: Tensor, targets: Tensor) -> Array:
        """The precision of each output's noise in standard units, from rows that the network was not trained on."""
        order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(self.seed_))
        count = max(round(_HELD_OUT * len(inputs)), min(_FEWEST_HELD_OUT, len(inputs) // 2))
        # A single row cannot be held out.
        held_out, rest = (order[:count], order[count:]) if count else (order, order)
        network = self._trained(inputs[rest], targets[rest], targets.shape[1], _squared_error)
        r = self._standardised(network, inputs[held_out], keep_samples=True)
        return np.array([_of_output(r, number).fit_tau(y) for number, y in enumerate(targets[held_out].T)])


def _of_output(r: ValuePrediction, number: int) -> ValuePrediction:
    """The prediction of one output, (N,)."""
    assert r.samples is not None
    return replace(
        r, measures={name: value[:, number] for name, value in r.measures.items()}, samples=r.samples[..., number]
    )


def _rescaled(measures: Mapping[str, Tensor], scale: Tensor, shift: Tensor | None) -> dict[str, Tensor]:
    """Measures or their errors in other units of y; estimates of y itself are shifted, too."""
    power = {"y": 1, "y^2": 2}
    rescaled: dict[str, Tensor] = {}
    for name, value in measures.items():
        measure = measures_of(ValuePrediction)[name]
        rescaled[name] = value * scale ** power.get(measure.unit, 0)
        if shift is not None and measure.higher_is_uncertain is None:
            rescaled[name] = rescaled[name] + shift
    return rescaled


def _squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.mse_loss(columns(outputs, targets.shape[1]), targets)


def __dir__() -> list[str]:
    return public_names(globals())
