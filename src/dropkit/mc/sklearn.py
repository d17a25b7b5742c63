"""MCClassifier, MCRegressor: scikit-learn estimators that predict the mean of many passes with dropout active.

Source: Gal, Ghahramani, "Dropout as a Bayesian Approximation: Representing Model Uncertainty in Deep Learning", ICML
2016, arXiv:1506.02142.
"""
# ruff: noqa: N803 (scikit-learn's X)

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Real
from typing import Any, Literal, cast, overload

import numpy as np
import torch
from torch import Tensor, nn

from dropkit.arguments import check
from dropkit.mc.measures import measures_of
from dropkit.mc.options import Masks, Plan
from dropkit.mc.prediction import ClassPrediction, ValuePrediction
from dropkit.mc.sklearn_base import (
    Array,
    ClassifierMixin,
    Make,
    Network,
    RegressorMixin,
    StandardScaler,
    one_column,
)

# A regressor fits the precision of the noise to a fifth of the rows, but to no fewer than this where there are more.
_HELD_OUT, _FEWEST_HELD_OUT = 0.2, 5


class MCClassifier(ClassifierMixin, Network):
    """A classifier with dropout that predicts the mean class probabilities of many passes.

    Trained by Adam on the cross entropy, on the CPU, with inputs standardised: each feature has mean 0 and variance 1
    over the training rows. Equal `random_state` give equal bits; torch's generator is left as it was.

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
        rows, labels = cast("tuple[Array, Array]", self._validated(X, y))
        self._check_classes(labels)
        self.classes_: Array
        self.classes_, indices = np.unique(labels, return_inverse=True)
        check("y", len(self.classes_) >= 2, "of two classes at least", f"{len(self.classes_)} class")
        inputs, targets = self._begin(rows), torch.from_numpy(indices.astype(np.int64))
        self.network_ = self._trained(inputs, targets, len(self.classes_), nn.functional.cross_entropy)
        return self

    def predict(self, X: Any) -> Array:
        """Predict the likeliest class of each row, (N,)."""
        label = self.predict_mc(X).label.numpy()
        return self.classes_[label]

    def predict_proba(self, X: Any) -> Array:
        """Predict the mean probability of each class, (N, classes), in the order of `classes_`."""
        return self.predict_mc(X).mean.double().numpy()

    def predict_mc(self, X: Any, keep_samples: bool = False) -> ClassPrediction:
        """Predict probabilities with their uncertainty; classes are numbers, indices into `classes_`."""
        inputs = self._checked_inputs(X)
        return cast("ClassPrediction", self._passes(self.network_, inputs, "classification", keep_samples))


class MCRegressor(RegressorMixin, Network):
    """A regressor with dropout that predicts the mean of many passes, and the deviation of passes and noise together.

    Like `MCClassifier`, with the squared error, and with targets standardised for the training.

    Args:
        module, hidden, p, epochs, lr, batch_size, weight_decay, samples, masks, plan, random_state: as for
            `MCClassifier`; the network has one output.
        tau: the precision of the observation noise, 1 / variance, in the units of y. "fit" for the likeliest on a fifth
            of the rows, shuffled, under a network that is trained without them; `network_` is then trained on all rows.
            That takes about twice as long.

    Attributes:
        tau_: the precision of the noise.
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

    # The same parameters again, since scikit-learn reads them from the signature of each class.
    def __init__(
        self,
        module: Make | None = None,
        *,
        hidden: Sequence[int] = (100,),
        p: float = 0.1,
        epochs: int = 100,
        lr: float = 0.01,
        batch_size: int = 64,
        weight_decay: float = 1e-4,
        samples: int = 50,
        masks: Masks | None = None,
        plan: Plan = "iid",
        random_state: Any = None,
        tau: float | Literal["fit"] = "fit",
    ) -> None:
        super().__init__(
            module,
            hidden=hidden,
            p=p,
            epochs=epochs,
            lr=lr,
            batch_size=batch_size,
            weight_decay=weight_decay,
            samples=samples,
            masks=masks,
            plan=plan,
            random_state=random_state,
        )
        self.tau: float | Literal["fit"] = tau

    def fit(self, X: Any, y: Any) -> MCRegressor:
        """Train a new network, or two.

        Raises:
            ValueError: a parameter is out of range.
        """
        rows, values = cast("tuple[Array, Array]", self._validated(X, y, y_numeric=True))
        tau: Any = self.tau
        is_given = isinstance(tau, Real) and 0 < float(tau) < math.inf
        check("tau", is_given or tau == "fit", 'larger than 0 and finite, or "fit"', tau)
        check("samples", self.samples != 1, "at least 2, to have a variance", self.samples)
        inputs, column = self._begin(rows), values.astype(np.float64)[:, None]
        self.target_scaler_: Any = StandardScaler().fit(column)
        targets = torch.from_numpy(self.target_scaler_.transform(column)[:, 0].astype(np.float32))
        self.tau_ = float(tau) if is_given else self._fit_tau(inputs, targets) / self._scale**2
        self.network_ = self._trained(inputs, targets, 1, _squared_error)
        return self

    @overload
    def predict(self, X: Any, return_std: Literal[False] = False) -> Array: ...
    @overload
    def predict(self, X: Any, return_std: Literal[True]) -> tuple[Array, Array]: ...
    @overload
    def predict(self, X: Any, return_std: bool) -> Array | tuple[Array, Array]: ...
    def predict(self, X: Any, return_std: bool = False) -> Array | tuple[Array, Array]:
        """Predict the mean of each row, (N,); with `return_std` also its standard deviation, noise included."""
        r = self._standardised(X, keep_samples=False)
        mean: Array = self.target_scaler_.inverse_transform(r.mean.double().numpy()[:, None])[:, 0]
        if not return_std:
            return mean
        return mean, np.sqrt(r.variance.double().numpy() * self._scale**2 + 1 / self.tau_)

    def predict_mc(self, X: Any, keep_samples: bool = False) -> ValuePrediction:
        """Predict values with their uncertainty, in the units of y; the variance is that of the passes alone."""
        r = self._standardised(X, keep_samples)
        scale, shift = self._scale, float(self.target_scaler_.mean_[0])
        return replace(
            r,
            measures=_rescaled(r.measures, scale, shift),
            standard_error=_rescaled(r.standard_error, scale, 0.0),
            samples=None if r.samples is None else r.samples * scale + shift,
        )

    @property
    def _scale(self) -> float:
        return float(self.target_scaler_.scale_[0])

    def _standardised(self, X: Any, keep_samples: bool) -> ValuePrediction:
        """The prediction in standard units."""
        inputs = self._checked_inputs(X)
        return cast("ValuePrediction", self._passes(self.network_, inputs, "regression", keep_samples))

    def _fit_tau(self, inputs: Tensor, targets: Tensor) -> float:
        """The precision of the noise in standard units, from rows that the network was not trained on."""
        order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(self.seed_))
        count = max(round(_HELD_OUT * len(inputs)), min(_FEWEST_HELD_OUT, len(inputs) // 2))
        # A single row cannot be held out.
        held_out, rest = (order[:count], order[count:]) if count else (order, order)
        network = self._trained(inputs[rest], targets[rest], 1, _squared_error)
        r = cast("ValuePrediction", self._passes(network, inputs[held_out], "regression", keep_samples=True))
        return r.fit_tau(targets[held_out])


def _rescaled(measures: Mapping[str, Tensor], scale: float, shift: float) -> dict[str, Tensor]:
    """Measures or their errors in other units of y; estimates of y itself are shifted, too."""
    power = {"y": 1, "y^2": 2}
    rescaled: dict[str, Tensor] = {}
    for name, value in measures.items():
        measure = measures_of(ValuePrediction)[name]
        rescaled[name] = value * scale ** power.get(measure.unit, 0)
        if shift and measure.higher_is_uncertain is None:
            rescaled[name] = rescaled[name] + shift
    return rescaled


def _squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.mse_loss(one_column(outputs), targets)
