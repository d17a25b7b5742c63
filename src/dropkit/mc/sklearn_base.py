"""What MCClassifier and MCRegressor share: parameters, training, passes; and the import of scikit-learn."""
# ruff: noqa: N803 (scikit-learn's X)

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dropkit.arguments import check, positive_int
from dropkit.mc.fit_network import Loss, Training, fit_network, perceptron
from dropkit.mc.options import Masks, Plan
from dropkit.mc.predict import predict
from dropkit.mc.prediction import Prediction

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

__all__ = ["ClassifierMixin", "RegressorMixin"]

Array = NDArray[Any]
Make = Callable[[int, int], nn.Module]
Task = Literal["classification", "regression"]


class Network(BaseEstimator):
    """What both estimators share: parameters, training, passes."""

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
        """Validate the parameters, draw the seed, and standardise the inputs of the training."""
        for name in ("epochs", "batch_size", "samples"):
            positive_int(name, getattr(self, name))
        self.seed_ = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        self.input_scaler_: Any = StandardScaler().fit(X)
        return self._inputs(X)

    def _inputs(self, X: Array) -> Tensor:
        return torch.from_numpy(self.input_scaler_.transform(X).astype(np.float32))

    def _checked_inputs(self, X: Any) -> Tensor:
        """Validated rows to predict, standardised."""
        check_is_fitted(self)
        return self._inputs(self._validated(X, reset=False))

    def _validated(self, *arrays: Any, **checks: Any) -> Any:
        """X, or X and y, as arrays that scikit-learn accepts."""
        return cast("Any", validate_data(self, *arrays, **checks))

    def _check_classes(self, y: Array) -> None:
        check_classification_targets(y)

    def _trained(self, inputs: Tensor, targets: Tensor, outputs: int, loss: Loss) -> nn.Module:
        """A new network, trained."""
        training = Training(self.epochs, self.lr, self.batch_size, self.weight_decay)

        def make() -> nn.Module:
            features = inputs.shape[1]
            return self.module(features, outputs) if self.module else perceptron(features, outputs, self.hidden, self.p)

        return fit_network(make, inputs, targets, loss, training, self.seed_)

    def _passes(self, network: nn.Module, inputs: Tensor, task: Task, keep_samples: bool) -> Prediction:
        return predict(
            network,
            inputs,
            int(self.samples),
            task,
            masks="shared" if self.masks is None else self.masks,
            plan=self.plan,
            seed=self.seed_,
            keep_samples=keep_samples,
            output=one_column if task == "regression" else None,
            progress=False,
        )


def one_column(outputs: Tensor) -> Tensor:
    """Return (N, 1) or (N,) as (N,)."""
    if outputs.dim() == 2 and outputs.shape[1] == 1:
        return outputs.squeeze(1)
    check("the output of the module", outputs.dim() == 1, "of shape (N, 1)", tuple(outputs.shape))
    return outputs
