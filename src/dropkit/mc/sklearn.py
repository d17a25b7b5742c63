"""MCClassifier, MCRegressor: scikit-learn estimators whose predictions are the means of many passes with dropout.

Source: Gal, Ghahramani, "Dropout as a Bayesian Approximation: Representing Model Uncertainty in Deep Learning", ICML
2016, arXiv:1506.02142.
"""
# ruff: noqa: N803 (scikit-learn's X)

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from numbers import Real
from typing import Any, Literal, cast, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dropkit.arguments import check, counted
from dropkit.mc.predict import predict
from dropkit.mc.prediction import ClassPrediction, Prediction, ValuePrediction
from dropkit.nn import Dropout

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.preprocessing import StandardScaler
    from sklearn.utils import check_random_state  # pyright: ignore[reportUnknownVariableType] (untyped)
    from sklearn.utils.multiclass import check_classification_targets  # pyright: ignore[reportUnknownVariableType] (untyped)
    from sklearn.utils.validation import (
        check_is_fitted,  # pyright: ignore[reportUnknownVariableType] (untyped)
        validate_data,  # pyright: ignore[reportUnknownVariableType] (untyped)
    )
except ImportError as error:
    raise ImportError('dropkit.mc.sklearn needs scikit-learn 1.6: pip install "dropkit[mc]"') from error

Array = NDArray[Any]
Make = Callable[[int, int], nn.Module]
Masks = Literal["input", "chunk", "shared"]
Plan = Literal["iid", "stratified"]
Task = Literal["classification", "regression"]

# Of the rows that a regressor is given, those that tell the noise: a fifth, but no fewer than this if there are.
_HELD_OUT, _FEWEST_HELD_OUT = 0.2, 5


class _Network(BaseEstimator):
    """What both have in common: parameters, training, passes."""

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
    ) -> None:
        self.module = module
        self.hidden = hidden
        self.p = p
        self.epochs = epochs
        self.lr = lr
        self.batch_size = batch_size
        self.weight_decay = weight_decay
        self.samples = samples
        self.masks: Masks | None = masks
        self.plan: Plan = plan
        self.random_state = random_state

    def _begin(self, X: Array) -> Tensor:
        """Check the parameters, draw the seed, and standardise the inputs of the training."""
        for name in ("epochs", "batch_size", "samples"):
            counted(name, getattr(self, name))
        self.seed_ = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        self.input_scaler_: Any = StandardScaler().fit(X)
        return self._inputs(X)

    def _inputs(self, X: Array) -> Tensor:
        return torch.from_numpy(self.input_scaler_.transform(X).astype(np.float32))

    def _seen(self, X: Any) -> Tensor:
        """Rows to predict, checked."""
        check_is_fitted(self)
        return self._inputs(cast("Array", validate_data(self, X, reset=False)))

    def _trained(self, inputs: Tensor, targets: Tensor, outputs: int, loss: Callable[..., Tensor]) -> nn.Module:
        """A new network, trained; torch's generator is left as it was."""
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            # Not torch.manual_seed, which would seed every accelerator, too.
            torch.default_generator.manual_seed(self.seed_)
            network = (self.module or self._perceptron)(inputs.shape[1], outputs).train()
            optimizer = torch.optim.Adam(network.parameters(), self.lr, weight_decay=self.weight_decay)
            for _ in range(self.epochs):
                order = torch.randperm(len(inputs))
                for first in range(0, len(inputs), self.batch_size):
                    batch = order[first : first + self.batch_size]
                    optimizer.zero_grad()
                    loss(network(inputs[batch]), targets[batch]).backward()
                    optimizer.step()
        return network.eval()

    def _perceptron(self, inputs: int, outputs: int) -> nn.Module:
        layers: list[nn.Module] = []
        for width in self.hidden:
            layers += [nn.Linear(inputs, width), nn.ReLU(), Dropout(self.p)]
            inputs = width
        return nn.Sequential(*layers, nn.Linear(inputs, outputs))

    def _passes(self, network: nn.Module, inputs: Tensor, task: Task, keep: bool) -> Prediction:
        return predict(
            network,
            inputs,
            int(self.samples),
            task,
            masks="shared" if self.masks is None else self.masks,
            plan=self.plan,
            seed=self.seed_,
            keep_samples=keep,
            output=_column if task == "regression" else None,
            progress=False,
        )


class MCClassifier(ClassifierMixin, _Network):
    """A network with dropout whose class probabilities are the mean of many passes.

    Trained by Adam on the cross entropy, on the CPU, with inputs standardised: each feature has mean 0 and variance 1
    over the training. Equal `random_state` give equal bits; torch's generator is left as it was.

    Args:
        module: makes the network from the numbers of its inputs and outputs, which are logits; `hidden` and `p` are not
            looked at then. A perceptron with `dropkit.nn.Dropout` after each hidden layer if None.
        hidden: widths of the hidden layers.
        p: expected fraction of their units dropped, in (0, 1).
        epochs: visits of every row.
        lr: learning rate.
        batch_size: rows a step.
        weight_decay: of all parameters.
        samples: passes for each prediction.
        masks: which inputs share the masks of a pass, as for `predict`. "shared" if None: the prediction for a row does
            not depend on the rows beside it.
        plan: "iid" or "stratified", as for `predict`.
        random_state: a seed, a `numpy.random.RandomState`, or None for numpy's own.

    Attributes:
        classes_: the classes, sorted.
        network_: the trained network, in eval mode; its inputs are standardised.
        input_scaler_: the `StandardScaler` that does that.
        seed_: of the training and of the passes.
        n_features_in_: columns of X.

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
        rows, labels = cast("tuple[Array, Array]", validate_data(self, X, y))
        check_classification_targets(labels)
        self.classes_: Array
        self.classes_, places = np.unique(labels, return_inverse=True)
        check("y", len(self.classes_) >= 2, "of two classes at least", f"{len(self.classes_)} class")
        inputs, targets = self._begin(rows), torch.from_numpy(places.astype(np.int64))
        self.network_ = self._trained(inputs, targets, len(self.classes_), nn.functional.cross_entropy)
        return self

    def predict(self, X: Any) -> Array:
        """The likeliest class of each row, (N,)."""
        label = self.predict_mc(X).label.numpy()
        return self.classes_[label]

    def predict_proba(self, X: Any) -> Array:
        """The mean probability of each class, (N, classes), in the order of `classes_`."""
        return self.predict_mc(X).mean.double().numpy()

    def predict_mc(self, X: Any, keep_samples: bool = False) -> ClassPrediction:
        """Probabilities with their uncertainty; classes are numbers, places in `classes_`."""
        inputs = self._seen(X)
        return cast("ClassPrediction", self._passes(self.network_, inputs, "classification", keep_samples))


class MCRegressor(RegressorMixin, _Network):
    """A network with dropout whose value is the mean of many passes, and whose error is their spread and the noise.

    As `MCClassifier`, with the squared error, and targets standardised for the training.

    Args:
        module, hidden, p, epochs, lr, batch_size, weight_decay, samples, masks, plan, random_state: as there; the
            network has one output.
        tau: the precision of the noise, one over its variance, in the units of y. "fit" for the likeliest on a fifth of
            the rows, shuffled, under a network that was trained without them; the one that is kept is trained on all.
            Training takes about twice as long then.

    Attributes:
        tau_: the precision of the noise.
        network_: the trained network, in eval mode; its inputs and outputs are standardised.
        input_scaler_, target_scaler_: the `StandardScaler` of each.
        seed_, n_features_in_: as there.

    Example:
        >>> X = [[0.0], [0.25], [0.5], [0.75], [1.0]]
        >>> model = MCRegressor(epochs=20, random_state=0).fit(X, [0.0, 0.5, 1.0, 1.5, 2.0])
        >>> mean, std = model.predict(X, return_std=True)
        >>> mean.shape, bool((std > 0).all())
        ((5,), True)
    """

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
        rows, values = cast("tuple[Array, Array]", validate_data(self, X, y, y_numeric=True))
        tau: Any = self.tau
        given = isinstance(tau, Real) and 0 < float(tau) < math.inf
        check("tau", given or tau == "fit", 'larger than 0 and finite, or "fit"', tau)
        check("samples", self.samples != 1, "at least 2, to have a variance", self.samples)
        inputs, column = self._begin(rows), values.astype(np.float64)[:, None]
        self.target_scaler_: Any = StandardScaler().fit(column)
        targets = torch.from_numpy(self.target_scaler_.transform(column)[:, 0].astype(np.float32))
        self.tau_ = float(tau) if given else self._fit_tau(inputs, targets) / self._scale**2
        self.network_ = self._trained(inputs, targets, 1, _squared_error)
        return self

    @overload
    def predict(self, X: Any, return_std: Literal[False] = False) -> Array: ...
    @overload
    def predict(self, X: Any, return_std: Literal[True]) -> tuple[Array, Array]: ...
    @overload
    def predict(self, X: Any, return_std: bool) -> Array | tuple[Array, Array]: ...
    def predict(self, X: Any, return_std: bool = False) -> Array | tuple[Array, Array]:
        """The mean of each row, (N,); with `return_std` also its standard deviation, that of the noise included."""
        r = self._standard(X, keep=False)
        mean: Array = self.target_scaler_.inverse_transform(r.mean.double().numpy()[:, None])[:, 0]
        if not return_std:
            return mean
        return mean, np.sqrt(r.variance.double().numpy() * self._scale**2 + 1 / self.tau_)

    def predict_mc(self, X: Any, keep_samples: bool = False) -> ValuePrediction:
        """Values with their uncertainty, in the units of y; the variance is that of the passes, without the noise."""
        r = self._standard(X, keep_samples)
        scale, shift = self._scale, float(self.target_scaler_.mean_[0])
        return replace(
            r,
            mean=r.mean * scale + shift,
            variance=r.variance * scale**2,
            standard_error={
                "mean": r.standard_error["mean"] * scale,
                "variance": r.standard_error["variance"] * scale**2,
            },
            draws=None if r.draws is None else r.draws * scale + shift,
        )

    @property
    def _scale(self) -> float:
        return float(self.target_scaler_.scale_[0])

    def _standard(self, X: Any, keep: bool) -> ValuePrediction:
        inputs = self._seen(X)
        return cast("ValuePrediction", self._passes(self.network_, inputs, "regression", keep))

    def _fit_tau(self, inputs: Tensor, targets: Tensor) -> float:
        """In standard units."""
        order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(self.seed_))
        held = max(round(_HELD_OUT * len(inputs)), min(_FEWEST_HELD_OUT, len(inputs) // 2))
        # Of a single row there is nothing to hold out.
        told, rest = (order[:held], order[held:]) if held else (order, order)
        network = self._trained(inputs[rest], targets[rest], 1, _squared_error)
        r = cast("ValuePrediction", self._passes(network, inputs[told], "regression", keep=True))
        return r.fit_tau(targets[told])


def _squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.mse_loss(_column(outputs), targets)


def _column(outputs: Tensor) -> Tensor:
    """(N,) of (N, 1) or (N,)."""
    if outputs.dim() == 2 and outputs.shape[1] == 1:
        return outputs.squeeze(1)
    check("the output of the module", outputs.dim() == 1, "of shape (N, 1)", tuple(outputs.shape))
    return outputs
