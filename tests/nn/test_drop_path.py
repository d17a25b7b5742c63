"""DropPath, and how torch's tools treat a layer that torch lacks. The laws of `helpers/laws.py` run on it as well."""

import copy
import pickle

import pytest
import torch
from helpers.compare import agree, compiled, observe
from torch import nn

import dropkit
from dropkit.functional import drop_path, dropout
from dropkit.nn import DropPath

X = torch.arange(1.0, 193.0).view(32, 3, 2)
KEPT = dropout(torch.ones(32), 0.25, key=7) != 0


def by_definition(p, scale):
    return torch.where(KEPT.view(32, 1, 1), X * scale, 0.0)


def test_whole_samples_are_dropped():
    """Sample n is kept exactly if mask element n is, and scaled by 1 / (1 - p)."""
    assert torch.equal(drop_path(X, 0.25, key=7), by_definition(0.25, torch.tensor(1 / 0.75)))


@pytest.mark.parametrize("inplace", [False, True], ids=["", "inplace"])
def test_without_scaling_kept_samples_stay(inplace):
    """The mask is that of the scaled form, the gradient is 1 where kept; function and module agree."""
    x = X.clone().requires_grad_()
    module = DropPath(0.25, inplace, scale_by_keep=False)

    output = drop_path(x * 1, 0.25, True, inplace, scale_by_keep=False, key=7)
    (grad,) = torch.autograd.grad(output.sum(), x)

    assert torch.equal(output.detach(), by_definition(0.25, 1.0))
    assert torch.equal(module(X.clone(), key=7), output.detach())
    assert torch.equal(grad, KEPT.view(32, 1, 1).expand_as(x).float())


@pytest.mark.parametrize("scale_by_keep", [True, False])
def test_batch_mode_drops_all_or_none(scale_by_keep):
    """One mask element for the batch, that of a dropout of one element; the rate over 400 keys is p within 5 errors."""
    scale = 1 / (1 - 0.3) if scale_by_keep else 1.0
    module, dropped = DropPath(0.3, mode="batch", scale_by_keep=scale_by_keep), 0
    for key in dropkit.random.split(3, 400):
        is_kept = bool(dropout(torch.ones(1), 0.3, key=key))
        assert torch.equal(module(X, key=key), X * torch.tensor(scale) if is_kept else torch.zeros_like(X))
        dropped += not is_kept
    assert abs(dropped / 400 - 0.3) < 5 * (0.3 * 0.7 / 400) ** 0.5

    torch.manual_seed(1)
    once = module(X)
    torch.manual_seed(1)
    assert torch.equal(compiled(module)(X), once)
    assert (
        repr(module)
        == f"DropPath(p=0.3, inplace=False, mode='batch'{'' if scale_by_keep else ', scale_by_keep=False'})"
    )


def test_another_mode_is_refused():
    """The error names the argument and both choices."""
    for make in (lambda: DropPath(0.3, mode="rows"), lambda: drop_path(X, 0.3, mode="rows")):
        with pytest.raises(ValueError, match='mode must be "row" or "batch", got \'rows\''):
            make()


def test_the_module_keeps_its_option():
    """The option shows in the module's text and survives copies, pickles and a graph of torch.fx."""
    module = DropPath(0.25, scale_by_keep=False)

    assert repr(module) == "DropPath(p=0.25, inplace=False, scale_by_keep=False)"
    traced = torch.fx.symbolic_trace(nn.Sequential(module))
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), traced, torch.fx.symbolic_trace(module)):
        torch.manual_seed(3)
        output = twin(X)
        torch.manual_seed(3)
        assert torch.equal(output, module(X))
        assert {float(scale) for scale in (output / X).unique()} == {0.0, 1.0}


def test_hooks_see_a_module_with_its_option_in_fx():
    """A module with hooks becomes a call of the function, with the option."""
    module = nn.Sequential(DropPath(0.25, scale_by_keep=False))
    module[0].register_forward_hook(lambda module, inputs, output: output)

    traced = torch.fx.symbolic_trace(module)

    (call,) = (node for node in traced.graph.nodes if node.target is drop_path)
    assert call.kwargs["scale_by_keep"] is False


def test_subclasses_see_the_option():
    """`__torch_function__` gets the option, and so does the call that it makes."""
    seen = []

    class Mode(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            seen.append((func, kwargs))
            return func(*args, **(kwargs or {}))

    with Mode():
        output = drop_path(X, 0.25, scale_by_keep=False, key=7)

    assert seen[0][0] is drop_path
    assert seen[0][1]["scale_by_keep"] is False
    assert torch.equal(output, by_definition(0.25, 1.0))


@pytest.mark.parametrize("scale_by_keep", [True, False])
def test_compiled_and_vectorised(scale_by_keep):
    """Compiled calls, also with the rate in a tensor, and calls under vmap give the bits of eager ones."""

    def drop(x, p):
        return drop_path(x, 0.25, scale_by_keep=scale_by_keep), drop_path(x, p, scale_by_keep=scale_by_keep)

    inputs = X.clone().requires_grad_(), torch.tensor(0.3)
    assert agree(observe(compiled(drop), *inputs), observe(drop, *inputs))

    batch, keys = torch.stack([X, -X]), dropkit.random.split(7)
    outputs = torch.vmap(lambda x, key: drop_path(x, 0.25, scale_by_keep=scale_by_keep, key=key))(batch, keys)
    expected = [drop_path(x, 0.25, scale_by_keep=scale_by_keep, key=key) for x, key in zip(batch, keys, strict=True)]
    assert torch.equal(outputs, torch.stack(expected))


@pytest.mark.parametrize("scale_by_keep", [True, False])
@pytest.mark.parametrize("strict", [False, True], ids=["", "strict"])
def test_an_exported_program_holds_torchs_operators(strict, scale_by_keep):
    """The program drops without a key and at other batch sizes; under install it has the mask of an eager call."""
    model = nn.Sequential(nn.Identity(), DropPath(0.25, scale_by_keep=scale_by_keep))
    shapes = {"input": {0: torch.export.Dim("batch", min=2)}}

    program = torch.export.export(model, (X,), dynamic_shapes=shapes, strict=strict)

    targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert "aten.dropout.default" in targets
    assert not [target for target in targets if "dropkit" in target]
    for batch in (X, torch.cat([X, X])):
        torch.manual_seed(3)
        expected = model(batch)
        torch.manual_seed(3)
        with dropkit.installed():
            output = program.module()(batch)
        # The mask is one of torch's dropout, whose kept elements are 1 / (1 - p) in the input's dtype.
        assert torch.equal(output, expected)


def test_an_exported_program_can_be_put_in_eval_mode():
    """Tools that switch the operator `aten.dropout` off in a graph switch the layer off."""
    program = torch.export.export(nn.Sequential(nn.Identity(), DropPath(0.25)), (X,)).module()
    for node in program.graph.nodes:
        if node.target is torch.ops.aten.dropout.default:
            node.args = (*node.args[:2], False)
    program.recompile()

    assert torch.equal(program(X), X)


def test_an_exported_key_is_dropkits():
    """With a key the program holds dropkit's operator, and the mask of the key."""

    class Keyed(nn.Module):
        def forward(self, x, key):
            return drop_path(x, 0.25, key=key)

    program = torch.export.export(Keyed(), (X, torch.tensor(3)))

    assert torch.equal(program.module()(X, torch.tensor(7)), drop_path(X, 0.25, key=7))


@pytest.mark.parametrize("given", ["list", 1, None])
def test_errors_name_the_function(given):
    """An input that is no tensor is refused in the words of torch's functions."""
    with pytest.raises(TypeError, match=r"drop_path\(\): argument 'input' .* must be Tensor"):
        drop_path(given)


def test_an_input_needs_a_batch():
    """A 0-d input has no samples."""
    with pytest.raises(RuntimeError, match="input must have at least 1 dimension, the batch, got a 0-d tensor"):
        drop_path(torch.tensor(1.0))


def test_convert_leaves_others_modules():
    """Other libraries' modules of this name may differ, so none is replaced."""

    class DropPath(nn.Module):
        pass

    assert dropkit.convert(nn.Sequential(DropPath(), dropkit.nn.DropPath())) == []


@pytest.mark.parametrize("scale_by_keep", [True, False])
def test_monte_carlo_sees_a_dropout(scale_by_keep):
    """mc.sampling and mc.predict make it drop in evaluation mode, whole samples at a time."""
    model = nn.Sequential(nn.Linear(4, 4), DropPath(0.5, scale_by_keep=scale_by_keep)).eval()
    x = torch.randn(16, 4)
    with torch.no_grad():
        plain = model(x)

        with dropkit.mc.sampling():
            sampled = model(x)
    samples = dropkit.mc.predict(model, x, 20, "regression", seed=0, keep_samples=True).samples

    scale = 2.0 if scale_by_keep else 1.0
    kept = (sampled != 0).any(1, keepdim=True)
    assert 0 < kept.sum() < 16
    assert torch.equal(sampled, torch.where(kept, plain * scale, 0.0))
    assert ((samples == 0).all(-1) | (samples != 0).all(-1)).all()


def test_an_audit_shows_a_site():
    """The audit reports its kind, its rate, and that it drops in training mode alone."""
    report = dropkit.audit(nn.Sequential(nn.Linear(4, 4), DropPath(0.5), nn.Linear(4, 2)), torch.randn(16, 4))

    (site,) = report.sites
    assert (site.name, site.kind, site.p) == ("1", "DropPath", 0.5)
    assert "DropPath" in report.table()
