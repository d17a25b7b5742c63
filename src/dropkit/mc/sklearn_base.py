"""The base class of MCClassifier and MCRegressor: parameters, default network, training and prediction."""
# ruff: noqa: N803 (scikit-learn's X)

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dropkit.arguments import check, positive_int
from dropkit.extras import needed_for
from dropkit.mc.options import Masks, Plan, Task
from dropkit.mc.predict import predict
from dropkit.mc.prediction import Prediction
from dropkit.nn import Dropout

if TYPE_CHECKING:
    # What type checkers shall know of scikit-learn's classes, which have no types.
    class BaseEstimator:
        def get_params(self, deep: bool = True) -> dict[str, Any]: ...
        def set_params(self, **params: Any) -> Any: ...

    class ClassifierMixin:
        def score(self, X: Any, y: Any, sample_weight: Any = None) -> float: ...

    class RegressorMixin:
        def score(self, X: Any, y: Any, sample_weight: Any = None) -> float: ...


with needed_for("dropkit.mc.sklearn"):
    if not TYPE_CHECKING:
        from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.preprocessing import StandardScaler
    from sklearn.utils import (
        check_random_state,  # pyright: ignore[reportUnknownVariableType] (untyped)
        column_or_1d,  # pyright: ignore[reportUnknownVariableType] (untyped)
    )
    from sklearn.utils.multiclass import (
        check_classification_targets,  # pyright: ignore[reportUnknownVariableType] (untyped)
        type_of_target,  # pyright: ignore[reportUnknownVariableType] (untyped)
    )
    from sklearn.utils.validation import (
        check_is_fitted,  # pyright: ignore[reportUnknownVariableType] (untyped)
        validate_data,  # pyright: ignore[reportUnknownVariableType] (untyped)
    )

__all__ = ["ClassifierMixin", "RegressorMixin", "column_or_1d"]

Array = NDArray[Any]
Loss = Callable[[Tensor, Tensor], Tensor]
Make = Callable[[int, int], nn.Module]


# A dataclass, since scikit-learn reads parameters from the signature of each class.
@dataclass(eq=False, repr=False)
class Network(BaseEstimator):
    """A network with dropout as an estimator."""

    module: Make | None = None
    _: KW_ONLY
    hidden: Sequence[int] = (100,)
    p: float = 0.1
    epochs: int = 100
    lr: float = 0.01
    batch_size: int = 64
    weight_decay: float = 1e-4
    samples: int = 50
    masks: Masks | None = None
    plan: Plan = "iid"
    random_state: Any = None

    def _begin(self, X: Array) -> Tensor:
        """Validate the parameters, draw the seed, and standardise the inputs of the training."""
        for name in ("epochs", "batch_size", "samples"):
            positive_int(name, getattr(self, name))
        self.seed_: int = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        self.input_scaler_: Any = StandardScaler().fit(X)
        return self._inputs(X)

    def _inputs(self, X: Array) -> Tensor:
        return torch.from_numpy(self.input_scaler_.transform(X).astype(np.float32))

    def _checked_inputs(self, X: Any) -> Tensor:
        """Validated rows to predict, standardised."""
        check_is_fitted(self)
        return self._inputs(self._validated(X, reset=False))

    def _validated(self, *arrays: Any, **checks: Any) -> Any:
        """Return X, or X and y, validated by scikit-learn; X becomes dense if it is sparse, as that of texts."""
        validated = cast("Any", validate_data(self, *arrays, accept_sparse="csr", **checks))
        rows, *targets = cast("tuple[Any, ...]", validated if isinstance(validated, tuple) else (validated,))
        rows = rows.toarray() if hasattr(rows, "toarray") else rows
        return (rows, *targets) if targets else rows

    def __sklearn_tags__(self) -> Any:
        tags = cast("Any", super()).__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _kind_of_classes(self, y: Array) -> str:
        """Return what the classes are, in scikit-learn's words, or raise an error for several classes of a row."""
        check_classification_targets(y)
        kind = str(cast("Any", type_of_target)(y, input_name="y"))
        check("y", kind != "multiclass-multioutput", "of one class for each row, or of labels that are 0 or 1", kind)
        return kind

    def _trained(self, inputs: Tensor, targets: Tensor, outputs: int, loss: Loss) -> nn.Module:
        """Make a network, train it by Adam and return it in eval mode; torch's generator is left as it was."""
        make = self.module or self._perceptron
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            # Not torch.manual_seed, which would seed every accelerator, too.
            torch.default_generator.manual_seed(self.seed_)
            network = make(inputs.shape[1], outputs).train()
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
        """A multilayer perceptron with dropout after each hidden layer."""
        layers: list[nn.Module] = []
        for width in self.hidden:
            layers += [nn.Linear(inputs, width), nn.ReLU(), Dropout(self.p)]
            inputs = width
        return nn.Sequential(*layers, nn.Linear(inputs, outputs))

    def _passes(
        self,
        network: nn.Module,
        inputs: Tensor,
        task: Task,
        keep_samples: bool,
        output: Callable[[Any], Tensor] | None = None,
    ) -> Prediction:
        return predict(
            network,
            inputs,
            int(self.samples),
            task,
            masks="shared" if self.masks is None else self.masks,
            plan=self.plan,
            seed=self.seed_,
            keep_samples=keep_samples,
            output=output,
            progress=False,
        )


def columns(outputs: Tensor, count: int) -> Tensor:
    """Return values as (N, outputs), also those of a single output, (N,)."""
    if outputs.dim() == 1:
        outputs = outputs.unsqueeze(1)
    fits = outputs.dim() == 2 and outputs.shape[1] == count
    check("the output of the module", fits, f"of shape (N, {count})", tuple(outputs.shape))
    return outputs
