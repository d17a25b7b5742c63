"""Tensors without memory: FakeTensors outside their mode, and keys on the meta device."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

import dropkit
from dropkit import functional, nn, random
from dropkit.nn.layer import Layer


def fake(*shape: int, requires_grad: bool = False, **options) -> Tensor:
    with FakeTensorMode():
        return torch.empty(shape, requires_grad=requires_grad, **options)


@pytest.mark.keeps_or_drops
@pytest.mark.parametrize("source", [{}, {"key": 7}, {"key": torch.tensor(7)}], ids=["drawn", "int", "tensor"])
@pytest.mark.parametrize("p", [0.4, 1.0])
@pytest.mark.parametrize("inplace", [False, True], ids=["", "inplace"])
def test_a_fake_tensor_gives_a_fake_tensor(layer: Layer, inplace, p, source):
    """Functions and modules give shape, dtype and strides of a real call, out of place and in place."""
    x, real = fake(*layer.example_shape, dtype=torch.bfloat16), torch.empty(layer.example_shape, dtype=torch.bfloat16)

    for output in (layer.function(x, p, True, inplace, **source), layer.module(p, inplace)(x, **source)):
        assert type(output) is FakeTensor
        assert (output is x) == inplace
        expected = layer.function(real, p, True)
        assert (output.dtype, output.stride()) == (expected.dtype, expected.stride())


def test_a_fake_tensor_has_a_fake_gradient(layer: Layer):
    """Forward and backward passes run outside the mode."""
    x = fake(*layer.example_shape, requires_grad=True)

    layer.function(x, 0.4, True).sum().backward()

    assert type(x.grad) is FakeTensor
    assert x.grad.shape == x.shape


def test_fused_functions_take_fake_tensors():
    """The fused functions run, with their gradients."""
    x = fake(4, 8, requires_grad=True)
    summed = functional.bias_act_dropout_add(functional.dropout_add(x, x, 0.3), None, x, 0.4)
    output, _ = functional.dropout_add_norm(summed, x, p=0.2)

    output.sum().backward()

    assert type(x.grad) is FakeTensor
    assert type(nn.DropoutAdd(0.3)(x, x)) is FakeTensor


def test_a_fake_tensor_of_a_gpu_needs_none():
    """A call outside the mode gives no warning that a kernel is missing."""
    x = fake(4, 8, device="cuda")

    assert functional.dropout(x).is_cuda
    assert functional.dropout_add_norm(x, x)[0].is_cuda


def test_install_takes_fake_tensors(shared_layer: Layer):
    """torch's functions under install accept FakeTensors."""
    with dropkit.installed():
        assert type(shared_layer.counterpart.function(fake(*shared_layer.example_shape), 0.4, True)) is FakeTensor


def test_nothing_is_drawn_for_fake_tensors():
    """FakeTensors behave as in torch, and in eval mode the input itself is returned."""
    before = torch.get_rng_state()

    functional.dropout(fake(4))

    assert torch.equal(torch.get_rng_state(), before)
    assert functional.dropout(x := fake(4), training=False) is x


META = torch.tensor(7, device="meta")


@pytest.mark.parametrize(
    "call",
    [
        lambda x: functional.dropout(x, key=META),
        lambda x: functional.dropout(x, key=META, inplace=True),
        lambda x: functional.dropout(x.requires_grad_(), key=META),
        lambda x: functional.dropout_add(x, x, key=META),
        lambda x: functional.dropout_add_norm(x, x, key=META),
        lambda x: functional.bias_act_dropout_add(x, None, x, key=META),
        lambda x: torch.vmap(lambda x: functional.dropout(x, key=META))(x),
        lambda x: torch.vmap(lambda x, key: functional.dropout(x, key=key))(x, META.expand(4)),
        lambda x: torch.func.grad(lambda x: functional.dropout(x, key=META).sum())(x),
        lambda x: torch.ops.dropkit.drop_v1(x, META, 1 << 31, 2.0, 0.0, 0.0, None, 0),
        lambda x: torch.ops.dropkit.drop_at_v1(x, META, torch.tensor(0.5), "inverted", True, None, 0),
    ],
)
def test_a_key_on_the_meta_device_is_refused(call):
    """A key without memory raises, since the mask cannot be computed."""
    with pytest.raises(
        ValueError, match=r"key must be on the device of the input, cpu, or on the CPU, got one on meta"
    ):
        call(torch.ones(4, 6))


def test_a_compiled_call_refuses_a_key_on_the_meta_device():
    """Compiled code raises for a key without memory, too."""
    with pytest.raises(Exception, match=r"key must be on the device of the input, cpu"):
        torch.compile(lambda x, key: functional.dropout(x, key=key), backend="aot_eager", fullgraph=True)(
            torch.ones(4), META
        )


def test_a_tensor_on_the_meta_device_takes_any_key():
    """On meta nothing is computed, so that a key on meta is accepted."""
    x = torch.empty(4, device="meta")

    for key in (7, META, torch.tensor(7)):
        assert functional.dropout(x, key=key).is_meta


@pytest.mark.parametrize("key", [3, None])
@pytest.mark.parametrize("call", ["vmap", "compile"])
def test_a_rate_without_memory_is_refused(call, key):
    """A rate without memory is refused as a key is, since it cannot be read."""
    p = torch.tensor(0.5, device="meta")
    run = {
        "vmap": torch.vmap(lambda x: functional.dropout(x, p, key=key), randomness="same"),
        "compile": torch.compile(lambda x: functional.dropout(x, p, key=key), backend="aot_eager"),
    }[call]

    with pytest.raises(Exception, match="p must be on the device of the input"):
        run(torch.ones(3, 4))


def test_keys_are_derived_from_fake_ones_outside_of_their_mode():
    """`fold_in` and `split` of a FakeTensor are FakeTensors; it cannot drop elements of a real tensor."""
    with FakeTensorMode():
        key = torch.tensor(3)

    assert type(random.fold_in(key, 3)) is type(key)
    assert random.split(key).shape == (2,)
    with pytest.raises(ValueError, match="key must have bits that can be read"):
        functional.dropout(torch.ones(3), key=key)
