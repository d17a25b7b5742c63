"""torch's quantisation treats dropkit's modules as torch's."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.ao import quantization
from torch.ao.quantization import quantize_fx
from torch.fx.experimental.optimization import remove_dropout

import dropkit
from dropkit.nn import LAYERS, Dropout, DropPath

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:UserWarning")

X = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))


def torchs(**options) -> nn.Module:
    torch.manual_seed(0)
    drops = nn.Dropout(0.3, **options), nn.Dropout(0.5, **options)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), drops[0], nn.Linear(16, 4), drops[1])


def ours(**options) -> nn.Module:
    model = torchs(**options)
    model[2], model[4] = Dropout(0.3, **options), Dropout(0.5, **options)
    return model


def converted(**options) -> nn.Module:
    model = torchs(**options)
    dropkit.convert(model)
    return model


def graph(model) -> list[tuple[str, str, str]]:
    modules = dict(model.named_modules())
    return [
        (node.op, str(node.target), type(modules[node.target]).__name__ if node.op == "call_module" else "")
        for node in model.graph.nodes
    ]


def after_training(model: nn.Module) -> tuple[list, list, Tensor]:
    mapping = quantization.get_default_qconfig_mapping("fbgemm")
    prepared = quantize_fx.prepare_fx(model.eval(), mapping, (X,))
    prepared(X)
    quantized = quantize_fx.convert_fx(prepared)
    return graph(prepared), graph(quantized), quantized(X)


def aware(model: nn.Module) -> tuple[list, list, Tensor]:
    mapping = quantization.get_default_qat_qconfig_mapping("fbgemm")
    prepared = quantize_fx.prepare_qat_fx(model.train(), mapping, (X,))
    assert not torch.equal(prepared(X), prepared(X))
    quantized = quantize_fx.convert_fx(prepared.eval())
    return graph(prepared), graph(quantized), X


@pytest.mark.parametrize(("make", "inplace"), [(ours, False), (ours, True), (converted, False)])
@pytest.mark.parametrize("how", [after_training, aware])
def test_fx_quantises_as_around_torchs(how, make, inplace):
    """Prepared and quantised graphs are the same node by node, and so are their results."""
    (prepared, quantized, output), expected = how(make(inplace=inplace)), how(torchs(inplace=inplace))

    assert prepared == expected[0]
    assert quantized == expected[1]
    assert torch.equal(output, expected[2])


def test_training_that_is_aware_of_quantisation_has_dropkits_masks():
    """The given model and the prepared one have the same dropout modules."""
    model = ours()
    prepared = quantize_fx.prepare_qat_fx(model.train(), quantization.get_default_qat_qconfig_mapping("fbgemm"), (X,))

    kept = prepared.get_submodule("2")

    assert kept is model[2]
    assert torch.equal(kept(X, key=7), dropkit.functional.dropout(X, 0.3, key=7))


def test_modules_are_quantised_without_a_graph():
    """Eager quantisation replaces the same modules as in torch's network, and gives the same results."""
    results = []
    for make in (torchs, ours):
        model = nn.Sequential(quantization.QuantStub(), *make(), quantization.DeQuantStub()).eval()
        model.qconfig = quantization.get_default_qconfig("fbgemm")
        prepared = quantization.prepare(model)
        prepared(X)
        quantized = quantization.convert(prepared)
        results.append([[type(module) for module in quantized], quantized(X)])

    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1])


def test_fx_removes_dropout():
    """torch.fx's optimisation for inference finds the modules."""
    names = [str(node.target) for node in remove_dropout(ours().eval()).graph.nodes]

    assert names == ["input", "0", "1", "3", "output"]


def test_a_class_is_found_where_torchs_is_listed(shared_layer):
    """A class is found by ==, in lists and in tables, for torch's class alone; its subclasses are not."""
    ours, torchs = shared_layer.module, shared_layer.counterpart.module
    subclass = type("Mine", (ours,), {})

    assert ours == torchs
    assert ours in [torchs]
    assert {torchs: 1}[ours] == 1
    assert ours is not torchs
    assert subclass not in {ours, torchs}
    assert sum(torchs == layer.module for layer in LAYERS) == 1
    for copied in (copy.deepcopy(ours(0.3)), pickle.loads(pickle.dumps(ours(0.3)))):
        assert type(copied) is ours


def test_a_class_that_torch_lacks_is_equal_to_itself_alone():
    """`DropPath` equals neither the base class of torch's dropout modules nor another layer."""
    others = [layer.module for layer in LAYERS if layer.module is not DropPath]

    assert DropPath == DropPath
    assert DropPath not in [*others, *DropPath.__mro__[1:]]


def test_fx_leaves_a_layer_that_torch_lacks_in_float():
    """The model around the layer is quantised as around any module that quantisation does not know."""

    class Unknown(nn.Module):
        def forward(self, x):
            return x

    outputs = []
    for layer in (DropPath(0.3), Unknown()):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 16), layer, nn.Linear(16, 4))
        outputs.append(after_training(model)[2])

    assert torch.equal(*outputs)
