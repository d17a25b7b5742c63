"""The plain passes of predict need no acceleration, and acceleration does not change their results."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.mc_models import MODELS, close, inputs, made
from torch import Tensor

from dropkit.mc import passes
from dropkit.mc.accelerator import Accelerator
from dropkit.mc.predict import predict

X = inputs(70)
SETTINGS: dict[str, Any] = {"samples": 4, "seed": 5, "keep_samples": True}

# The same in a process in which the acceleration cannot be imported.
PLAIN = """
import sys
sys.modules["dropkit.mc.accelerate"] = None
import torch
from helpers.mc_models import MODELS, made
from test_mc_plain_core import SETTINGS, X, predict
torch.save(
    {
        (name, masks): predict(made(name), X, masks=masks, replay=False, thin=False, **SETTINGS).samples
        for name in MODELS for masks in ("input", "shared")
    },
    sys.argv[1],
)
"""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Tensor]:
    file = str(tmp_path_factory.mktemp("plain") / "draws")
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    code = f"import sys; sys.path[:0] = {folders}\n{PLAIN}"
    subprocess.run([sys.executable, "-c", code, file], check=True)
    return torch.load(file)


@pytest.mark.parametrize("masks", ["input", "shared"])
@pytest.mark.parametrize("name", MODELS)
def test_the_prefix_cache_gives_the_bits_of_the_plain_core(
    name: str, masks: Any, plain: dict[tuple[str, str], Tensor]
) -> None:
    """The core runs without the package `accelerate`."""
    assert torch.equal(predict(made(name), X, masks=masks, thin=False, **SETTINGS).samples, plain[name, masks])


@pytest.mark.parametrize("name", MODELS)
def test_pruned_networks_give_the_numbers_of_the_plain_core(name: str, plain: dict[tuple[str, str], Tensor]) -> None:
    """Up to the rounding of sums that are taken in another order."""
    accelerated = predict(made(name), X, masks="shared", **SETTINGS).samples

    assert accelerated is not None
    assert close(accelerated, plain[name, "shared"])


class Failing(Accelerator):
    """Fails at the end of a pass, as long as it has something left to switch off."""

    def __init__(self, parts: int, failures: int) -> None:
        self.parts, self.failures = parts, failures

    def end_pass(self, has_hidden_randomness: bool) -> None:
        if self.failures:
            self.failures -= 1
            raise RuntimeError("the accelerator fails")

    def failed(self, error: Exception) -> bool:
        self.parts -= 1
        return self.parts >= 0


@pytest.mark.parametrize(("parts", "failures"), [(2, 0), (2, 1), (2, 2), (0, 1), (2, 3)])
def test_a_pass_is_run_again_while_the_accelerator_has_something_to_switch_off(
    parts: int, failures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result is that of passes that did not fail; with nothing left to switch off, the error is raised."""
    settings = {**SETTINGS, "replay": False, "thin": False}
    expected = predict(made("mlp"), X, **settings).samples
    monkeypatch.setattr(passes, "Accelerator", lambda: Failing(parts, failures))

    if failures <= parts:
        assert torch.equal(predict(made("mlp"), X, **settings).samples, expected)
    else:
        with pytest.raises(RuntimeError, match="the accelerator fails"):
            predict(made("mlp"), X, **settings)
