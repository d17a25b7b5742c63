"""Laws of the contract with torch besides the outcome of calls: signatures, modules, modes."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from dropkit import functional
from dropkit.nn.layer import Layer

KEY = 7
OURS = ("generator", "key")


def example(layer: Layer, requires_grad: bool = False) -> Tensor:
    return torch.rand(layer.example_shape, dtype=torch.float64).requires_grad_(requires_grad)


@pytest.mark.keeps_or_drops
def test_function_has_torchs_signature(layer):
    """The first four parameters are torch's, `dropout`'s if torch lacks the layer; the others are by keyword alone."""
    torchs = layer.counterpart.function if layer.counterpart else torch.nn.functional.dropout
    added = parameters(layer.function)[4:]

    assert parameters(layer.function)[:4] == parameters(torchs)
    assert {kind for _, _, kind in added} == {inspect.Parameter.KEYWORD_ONLY}
    names = [name for name, _, _ in added]
    assert tuple(names[-2:]) == OURS
    assert set(names[:-2]) == options(layer)
    assert [default for _, default, _ in added[-2:]] == [None, None]


@pytest.mark.keeps_or_drops
def test_module_has_torchs_signature(layer):
    """The constructor is torch's, with the layer's own options by keyword; `forward` adds `generator` and `key`."""
    torchs = layer.counterpart.module if layer.counterpart else torch.nn.Dropout
    added = [parameter for parameter in parameters(layer.function) if parameter[0] in options(layer)]

    assert parameters(layer.module) == parameters(torchs) + added
    assert parameters(layer.module.forward) == parameters(torchs.forward) + parameters(layer.function)[-2:]


def options(layer: Layer) -> set[str]:
    """Keyword arguments that this layer alone has: those that choose a record."""
    return set() if layer.choose is None else set(inspect.signature(layer.choose).parameters)


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    return [(p.name, p.default, p.kind) for p in inspect.signature(function).parameters.values()]


def test_module_is_one_of_torchs(shared_layer):
    """isinstance, constants, text, attributes and state are those of torch's module."""
    ours, theirs = shared_layer.module(0.25, True), shared_layer.counterpart.module(0.25, True)

    assert isinstance(ours, shared_layer.counterpart.module)
    assert repr(ours) == repr(theirs)
    assert ours.__constants__ == theirs.__constants__
    assert vars(ours).keys() == vars(theirs).keys()
    assert not ours.state_dict()
    ours.load_state_dict(theirs.state_dict())


def through_torch_save(module: torch.nn.Module) -> torch.nn.Module:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.keeps_or_drops
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), through_torch_save])
def test_module_can_be_copied(layer, copied):
    """deepcopy, pickle and torch.save keep the class, `p`, `inplace` and the training flag."""
    module = layer.module(0.25, inplace=True).eval()

    twin = copied(module)

    assert type(twin) is layer.module
    assert (twin.p, twin.inplace, twin.training) == (0.25, True, False)


@pytest.mark.keeps_or_drops
def test_constructor_checks_p(layer):
    """A `p` outside [0, 1] is refused before there is a module, NaN too."""
    for p in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=f"dropout probability has to be between 0 and 1, but got {p}"):
            layer.module(p)


@pytest.mark.keeps_or_drops
@pytest.mark.parametrize("training", [True, False])
def test_p_is_read_at_each_forward(layer, training):
    """`m.p` may change between calls, and is checked in each, also in eval."""
    module, x = layer.module(0.5).train(training), example(layer)

    module.p = 0.0
    assert module(x) is x
    module.p = 1.0
    assert module(x).count_nonzero() == (0 if training else x.numel())
    module.p = 1.5
    with pytest.raises(ValueError, match=r"but got 1\.5"):
        module(x)


def test_autocast_keeps_the_dtype(layer):
    """Dropout is on none of autocast's lists."""
    with torch.autocast("cpu", torch.bfloat16):
        for dtype in (torch.float32, torch.bfloat16):
            assert layer.function(example(layer).to(dtype), 0.5, True).dtype == dtype


@pytest.mark.parametrize(("name", "shape"), [("dropout2d", (2, 3)), ("dropout2d", (2, 3, 4)), ("dropout3d", (2, 3, 4))])
def test_warnings_point_at_the_caller(name, shape):
    """A warning about a rank names the line of the call, so that Python shows it once per line."""
    function = getattr(functional, name)

    line = inspect.currentframe().f_lineno + 2
    with pytest.warns(UserWarning, match=name) as caught:
        function(torch.ones(shape))

    assert {(warning.filename, warning.lineno) for warning in caught} == {(__file__, line)}


class Recorder(Tensor):
    seen: ClassVar[list[Any]] = []

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        cls.seen.append((func, args, kwargs))
        return super().__torch_function__(func, types, args, kwargs)


@pytest.mark.keeps_or_drops
def test_a_subclass_sees_the_call_and_is_kept(layer):
    """`__torch_function__` gets the function, the input alone as positional, the rest by keyword; the type stays."""
    x = example(layer).as_subclass(Recorder)
    Recorder.seen.clear()

    output = layer.function(x, 0.5, True)

    func, args, kwargs = Recorder.seen[0]
    assert (func, kwargs) == (layer.function, {"p": 0.5, "training": True, "inplace": False})
    assert len(args) == 1
    assert args[0] is x
    assert type(output) is Recorder


@pytest.mark.keeps_or_drops
def test_a_function_mode_sees_the_call(layer):
    """A TorchFunctionMode sees the call of the function, with the key only where one is given."""
    seen = []

    class Mode(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            seen.append((func, (kwargs or {}).keys()))
            return func(*args, **(kwargs or {}))

    with Mode():
        layer.function(example(layer), 0.5, True)
        layer.function(example(layer), 0.5, True, key=KEY)

    calls = [keywords for func, keywords in seen if func is layer.function]
    assert calls == [{"p", "training", "inplace"}, {"p", "training", "inplace", "key"}]


def test_a_parameter_gives_a_tensor(layer):
    """The output for a Parameter is a plain Tensor; in eval it is the Parameter itself."""
    x = torch.nn.Parameter(example(layer))

    assert type(layer.function(x, 0.5, True)) is Tensor
    assert layer.function(x, 0.5, False) is x


class Operators(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


@pytest.mark.keeps_or_drops
def test_a_dispatch_mode_sees_an_operator(layer):
    """Counters, profilers and tracers see one operator; they change neither the mask nor the random state."""
    x, generator = example(layer), torch.Generator()
    unwatched = layer.function(x, 0.5, True, generator=generator.manual_seed(1))

    with Operators() as operators:
        watched = layer.function(x, 0.5, True, generator=generator.manual_seed(1))

    assert operators.names.count("dropkit::drop_v1") == 1
    assert torch.equal(watched, unwatched)


def test_fake_tensors_have_the_layout_of_real_ones(layer):
    """A fake input gives a fake output with the strides of a real one, without a random draw."""
    x = example(layer).transpose(0, 1).contiguous().transpose(0, 1)
    before = torch.get_rng_state()

    with FakeTensorMode() as mode:
        output = layer.function(mode.from_tensor(x), 0.5, True)

    assert type(output) is FakeTensor
    assert (output.dtype, output.shape, output.stride()) == (x.dtype, x.shape, x.stride())
    assert torch.equal(torch.get_rng_state(), before)


def test_a_generator_is_where_the_key_comes_from(layer):
    """Equal states of `generator` give equal masks; each call advances it, and not the default generator."""
    x, generator = example(layer), torch.Generator().manual_seed(1)
    before = torch.get_rng_state()

    first, second = (layer.function(x, 0.5, True, generator=generator) for _ in range(2))
    again = layer.module(0.5)(x, generator=generator.manual_seed(1))

    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.keeps_or_drops
def test_no_key_is_drawn_if_nothing_is_random(layer):
    """Eval, p = 0, p = 1 and inputs without elements do not advance the generator."""
    generator = torch.Generator()
    before = generator.get_state()

    for p, training in ((0.5, False), (0.0, True), (1.0, True)):
        layer.function(example(layer), p, training, generator=generator)
    layer.function(example(layer)[:0], 0.5, True, generator=generator)

    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("training", [True, False])
def test_generator_and_key_exclude_each_other(layer, training):
    """The error says that only one of the two may be given."""
    with pytest.raises(ValueError, match="key must be None where generator is given, got both"):
        layer.function(example(layer), 0.5, training, generator=torch.Generator(), key=KEY)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_dtypes_that_torch_serves_take_no_key(layer, dtype):
    """For a dtype that torch's dropout serves, `key` and `generator` would have no effect, so they are refused."""
    if dtype.is_complex and layer.takes_complex:
        pytest.skip("this layer drops complex numbers")
    for given in ({"key": KEY}, {"generator": torch.Generator()}):
        with pytest.raises(NotImplementedError, match=f"{next(iter(given))} must be None"):
            layer.function(example(layer).to(dtype), 0.5, True, **given)


@pytest.mark.keeps_or_drops
@pytest.mark.parametrize("inplace", [False, True])
def test_complex_numbers_are_0_at_p_1(layer, inplace):
    """So are NaN and infinity, with gradient 0, and the memory layout stays."""
    x = example(layer).to(torch.complex64).transpose(0, 1).contiguous().transpose(0, 1)
    x[0], x[1] = float("nan"), float("inf")
    x.requires_grad_()

    output = layer.function(x * 1, 1.0, True, inplace)
    output.abs().sum().backward()

    assert not output.count_nonzero()
    assert output.stride() == x.stride()
    assert not x.grad.count_nonzero()


def test_lazy_negation_is_read_and_written(layer):
    """A tensor that torch negates lazily is dropped by its value, in place too."""
    value = example(layer)
    lazy = torch._neg_view(-value)
    expected = layer.function(value, 0.5, True, key=KEY)

    assert torch.equal(layer.function(lazy, 0.5, True, key=KEY), expected)
    assert torch.equal(layer.function(lazy, 0.5, True, True, key=KEY), expected)
    assert torch.equal(lazy, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (torch.ones(3), torch.tensor(7.9), 0, 1.0, 0.0, 0.0, (1,), 0),
            "key must be an int64 tensor, 0-d or of the input's first sizes, or a uint64 tensor with a last dimension "
            "of 2 besides, got a tensor of torch.float32",
        ),
        ((torch.arange(3), torch.tensor(7), 0, 1.0, 0.0, 0.0, (1,), 0), "input must be float16, .* got torch.int64"),
        ((torch.ones(3), torch.tensor(7), 0, 1.0, 0.0, 0.0, (1, 1), 0), "strides must be 1 numbers, .* got 2"),
    ],
)
def test_the_operator_refuses_what_it_cannot_run(arguments, message):
    """dropkit::drop_v1 is public through torch.ops: wrong input is an error that names the argument."""
    with pytest.raises((TypeError, ValueError), match=message):
        torch.ops.dropkit.drop_v1(*arguments)
