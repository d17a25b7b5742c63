"""`--weights`: checkpoints as programs write them fit the model, and what does not fit is named."""

import click
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from dropkit.cli.actions.weights import load_weights, modules_in
from dropkit.cli.options import Failed


def network():
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Dropout(), nn.Linear(3, 2))


STATE = {name: torch.full_like(value, 7) for name, value in network().state_dict().items()}
OTHER = {name: torch.zeros_like(value) for name, value in STATE.items()}
OPTIMIZER = {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}


def prefixed(prefix, state=STATE):
    return {prefix + name: value for name, value in state.items()}


class Wrapper(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = network()


CHECKPOINTS = {
    "bare": STATE,
    "state_dict": {"state_dict": STATE, "epoch": 3},
    "model": {"model": STATE, "optimizer": OPTIMIZER, "epoch": 3},
    "model_state_dict": {"epoch": 3, "model_state_dict": STATE, "optimizer_state_dict": OPTIMIZER, "loss": 0.5},
    "net": {"net": STATE, "acc": 93.0},
    "one of an unknown name": {"generator": STATE, "epoch": 3},
    "nested": {"model": {"state_dict": STATE}, "optimizer": OPTIMIZER},
    "beside an average": {"ema": OTHER, "model": STATE},
    "an average alone": {"state_dict_ema": STATE, "epoch": 3},
    "DistributedDataParallel": prefixed("module."),
    "compiled": prefixed("_orig_mod."),
    "compiled and distributed": {"model": prefixed("module._orig_mod.")},
    "compiled inside": {name.replace("0.", "0._orig_mod.", 1): value for name, value in STATE.items()},
    "Lightning": {"state_dict": {**prefixed("model."), "loss.weight": torch.ones(2)}, "pytorch-lightning_version": "2"},
    "Lightning, an unknown name": {"state_dict": prefixed("classifier.backbone.")},
    "a teacher beside it": {**prefixed("model."), **prefixed("model_ema.", OTHER)},
    "averaged by torch": AveragedModel(network()).state_dict() | {"n_averaged": torch.tensor(3)} | prefixed("module."),
    "without counts of batches": {name: value for name, value in STATE.items() if "num_batches" not in name},
    "a tensor of parameters": {name: nn.Parameter(v) if v.is_floating_point() else v for name, v in STATE.items()},
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_weights_are_found_in_a_checkpoint(tmp_path, kind):
    """Under any of the usual names, and with the prefixes of wrappers."""
    torch.save(CHECKPOINTS[kind], tmp_path / "weights.pt")
    module = network()

    load_weights(module, str(tmp_path / "weights.pt"), trust=False)

    assert all(bool((parameter == 7).all()) for parameter in module.parameters())


def test_a_wrapper_gets_the_weights_of_what_it_wraps(tmp_path):
    """The names of the file lack the prefix, of an attribute or of torch.compile."""
    torch.save(STATE, tmp_path / "weights.pt")

    for module in (Wrapper(), torch.compile(network(), backend="eager")):
        load_weights(module, str(tmp_path / "weights.pt"), trust=False)
        assert all(bool((parameter == 7).all()) for parameter in module.parameters())


def test_safetensors_are_read(tmp_path):
    """With the same prefixes."""
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file(prefixed("module."), tmp_path / "weights.safetensors")
    module = network()

    assert load_weights(module, str(tmp_path / "weights.safetensors"), trust=False) == []
    assert bool((module[0].weight == 7).all())


def test_what_is_left_out_is_noted(tmp_path):
    """Tensors beside the model, and that there was an average alone."""
    for kind, note in (
        ("Lightning", "--weights holds more than the model, which was left out: loss.weight"),
        ("an average alone", "--weights has no other weights than 'state_dict_ema', an average over training"),
    ):
        torch.save(CHECKPOINTS[kind], tmp_path / "weights.pt")
        assert load_weights(network(), str(tmp_path / "weights.pt"), trust=False) == [note]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"0.weight": STATE["0.weight"]}, "missing: 0.bias, 1.weight, 1.bias, ... (7 in all)"),
        ({**STATE, "head.weight": torch.ones(1)}, "unexpected: head.weight"),
        ({**STATE, "3.bias": torch.ones(5)}, "of another shape: 3.bias (5,) for (2,) in the model"),
        ({**prefixed("model."), "model.3.bias": torch.ones(5)}, "does not fit the model: of another shape: 3.bias"),
        ({**prefixed("module."), "module.x": torch.ones(5)}, "does not fit the model: unexpected: x"),
        ({"generator": STATE, "discriminator": OTHER}, "the weights of one model, got generator, discriminator"),
        ({"epoch": 3, "optimizer": OPTIMIZER}, "must hold a state dict, names with tensors, got 'epoch', 'optimizer'"),
        ({}, "must hold a state dict, names with tensors, got an empty one"),
        ([1], "must hold a state dict, names with tensors, got list"),
        ({**STATE, "3.bias": 1}, "must hold a state dict, names with tensors, got '0.weight', '0.bias', "),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, content, message):
    """In one line, without the prefixes that were understood."""
    torch.save(content, tmp_path / "weights.pt")

    with pytest.raises((Failed, click.BadParameter)) as error:
        load_weights(network(), str(tmp_path / "weights.pt"), trust=False)

    assert message in error.value.message
    assert "\n" not in error.value.message


def test_objects_are_loaded_only_with_trust(tmp_path):
    """A whole module, or one under a name of a checkpoint, gives its weights, or itself."""
    module = network()
    module.load_state_dict(STATE)
    torch.save({"epoch": 1, "ema": None, "model": module}, tmp_path / "whole.pt")
    other = network()

    with pytest.raises(click.UsageError, match="loading it runs code in it: give --trust"):
        load_weights(other, str(tmp_path / "whole.pt"), trust=False)
    load_weights(other, str(tmp_path / "whole.pt"), trust=True)

    assert torch.equal(other[0].weight, module[0].weight)
    assert [name for name, _ in modules_in({"ema": network(), "model": module})] == ["model", "ema"]
