"""predict leaves models, threads, flags and generators as they were, and is not affected by them."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from helpers.mc_models import inputs, made
from helpers.mc_trap_models import Base
from torch import Tensor, nn

from dropkit import mc
from dropkit.mc.predict import predict

X = inputs(70)


def run(model: nn.Module, **settings: Any) -> Any:
    return predict(model.eval(), X, 6, **{"seed": 5, "keep_samples": True, "masks": "shared", **settings})


@pytest.mark.parametrize("settings", [{}, {"replay": False}, {"thin": False}, {"masks": "input"}])
def test_an_exception_in_a_pass_leaves_no_trace(settings: dict[str, Any]) -> None:
    """The exception of the model is raised, and the model and torch are as before."""

    class Fails(Base):
        passes = 0

        def forward(self, x: Tensor) -> Tensor:
            h = self.drop(self.start(x))
            self.passes += 1
            if self.passes > 5:
                raise ValueError("the fifth pass")
            return self.head(h)

    model = Fails().train()

    with pytest.raises(ValueError, match="the fifth pass"):
        predict(model, X, 20, seed=5, **settings)

    assert all(module.training for module in model.modules())
    assert model.eval().drop(X) is X
    assert len(torch.overrides._get_current_function_mode_stack()) == 0


def test_two_threads_at_once() -> None:
    """Two threads that predict with one model in training mode, with different seeds, get what each gets alone."""
    model = made("DropPath").train()
    alone = [predict(model, X, 20, seed=seed, batch_size=10).mean for seed in (1, 2)]
    together: dict[int, Tensor] = {}

    def predict_with(seed: int) -> None:
        together[seed] = predict(model, X, 20, seed=seed, batch_size=10).mean

    threads = [threading.Thread(target=predict_with, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert torch.equal(together[1], alone[0])
    assert torch.equal(together[2], alone[1])
    assert model.training


def test_batch_norm_in_training_mode_is_not_touched() -> None:
    """A model in training mode is evaluated with the statistics of batch norm, and left in training mode."""
    model = made("Dropout").train()
    before = model.norm.running_mean.clone()

    run(model.train())
    predict(model.train(), X, 4, seed=5)

    assert torch.equal(model.norm.running_mean, before)
    assert model.norm.training


def test_dropouts_that_were_set_to_training_mode_by_hand() -> None:
    """The result is the same after the usual snippet that calls train() on each dropout, and so are the flags."""
    model = made("TransformerEncoderLayer")
    expected = predict(model, X, 4, seed=5).mean
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.train()

    assert torch.equal(predict(model, X, 4, seed=5).mean, expected)
    assert any(module.training for module in model.modules())


def test_inference_mode_does_not_change_the_result() -> None:
    """A call in inference mode, of inputs that were made in it, gives the same result."""
    model = made("residual")
    expected = run(model).samples

    with torch.inference_mode():
        r = predict(model, X * 1, 6, seed=5, masks="shared", keep_samples=True)

    assert torch.equal(r.samples, expected)


def test_compiled_models_run_uncompiled() -> None:
    """A compiled model gives the result of the model that was compiled."""
    model = made("mlp")
    expected = run(model).samples

    assert torch.equal(run(torch.compile(model, backend="eager")).samples, expected)


def test_scripted_models_are_refused() -> None:
    """The error says that TorchScript is the reason."""
    with pytest.raises(TypeError, match="must not be scripted where it has dropout"):
        run(torch.jit.script(made("mlp")))


def test_torchs_own_dropout_may_be_dropkits() -> None:
    """`install` changes nothing here, since masks come from dropkit's kernels in any case."""
    import dropkit

    model = made("encoder, sequence first")
    expected = run(model, masks="input").samples

    with dropkit.installed():
        assert torch.equal(run(model, masks="input").samples, expected)


def test_sampling_may_surround_it() -> None:
    """Inside a sampling block the result is the same."""
    model = made("mlp")
    expected = run(model).samples

    with mc.sampling():
        assert torch.equal(run(model).samples, expected)
        model(X)
