"""Programs written for torch on dropkit's kernels: operators, modules, scripts."""

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from helpers.rounding import equal_but_for_rounding
from torch import Tensor

import dropkit
from dropkit import nn
from dropkit.functional import dropout
from dropkit.ops import autograd


class Calls:
    """How often dropkit's kernel ran."""

    count = 0


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    counted, drop = Calls(), autograd.kernels.drop

    def counting(*arguments: object) -> None:
        counted.count += 1
        drop(*arguments)

    monkeypatch.setattr(autograd.kernels, "drop", counting)
    monkeypatch.setattr(autograd.kernels, "dropped_on_cpu", autograd.kernels.dropped)
    return counted


@pytest.fixture(autouse=True)
def _uninstalled() -> Iterator[None]:
    yield
    dropkit.uninstall()


QUERY = torch.randn(2, 2, 8, 4)
PROGRAMS: dict[str, Callable[[], Tensor]] = {
    "nn.Dropout": lambda: torch.nn.Dropout(0.5)(torch.ones(50)),
    "nn.Dropout2d": lambda: torch.nn.Dropout2d(0.5)(torch.ones(5, 10, 2, 2)),
    "F.dropout in place": lambda: F.dropout(torch.ones(50), 0.5, inplace=True),
    "F.dropout1d unbatched": lambda: F.dropout1d(torch.ones(50, 2), 0.5),
    "F.dropout3d": lambda: F.dropout3d(torch.ones(5, 10, 1, 1, 2), 0.5),
    "F.alpha_dropout": lambda: F.alpha_dropout(torch.ones(50), 0.5, training=True),
    "F.feature_alpha_dropout": lambda: F.feature_alpha_dropout(torch.ones(5, 10, 2), 0.5, training=True),
    "torch.dropout": lambda: torch.dropout(torch.ones(50), 0.5, True),
    "torch.dropout_": lambda: torch.dropout_(torch.ones(50), 0.5, True),
    "TransformerEncoderLayer": lambda: torch.nn.TransformerEncoderLayer(8, 2, 16, 0.5, batch_first=True)(QUERY[0]
        .flatten(1).view(1, -1, 8)),
    "MultiheadAttention": lambda: torch.nn.MultiheadAttention(8, 2, 0.5)(*[torch.ones(4, 1, 8)] * 3)[0],
    "scaled_dot_product_attention": lambda: F.scaled_dot_product_attention(QUERY, QUERY, QUERY, dropout_p=0.5),
    "LSTM": lambda: torch.nn.LSTM(4, 8, 3, dropout=0.5)(torch.ones(5, 2, 4))[0],
    "GRU": lambda: torch.nn.GRU(4, 8, 3, dropout=0.5)(torch.ones(5, 2, 4))[0],
    "RNN": lambda: torch.nn.RNN(4, 8, 3, dropout=0.5)(torch.ones(5, 2, 4))[0],
}  # fmt: skip

# Number of dropouts that a program runs, if it is not 1.
COUNTS = {"TransformerEncoderLayer": 4, "LSTM": 2, "GRU": 2, "RNN": 2}


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("program", PROGRAMS)
def test_install_reaches_every_dropout(program, mode, calls):
    """Every dropout of the program runs on dropkit's kernel, under autograd and without, and none after uninstall."""
    with mode(), dropkit.installed():
        PROGRAMS[program]()
    assert calls.count == COUNTS.get(program, 1)

    with mode():
        PROGRAMS[program]()
    assert calls.count == COUNTS.get(program, 1)


def test_an_installed_function_is_dropkits(shared_layer):
    """From one seed, torch's function under install gives the bits of dropkit's, output and gradient."""
    outcomes = []
    for function in (shared_layer.counterpart.function, shared_layer.function):
        input = torch.randn(shared_layer.example_shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
        torch.manual_seed(5)
        with dropkit.installed():
            output = function(input, 0.4, True)
        outcomes.append((output.detach(), *torch.autograd.grad(output.sum(), input)))

    assert torch.equal(outcomes[0][0], outcomes[1][0])
    assert torch.equal(outcomes[0][1], outcomes[1][1])


def test_uninstall_gives_torch_back_bitwise():
    """The same seed gives the same numbers before install and after uninstall."""
    torch.manual_seed(0)
    before = F.dropout(torch.ones(100))

    dropkit.install()
    dropkit.install()
    torch.manual_seed(0)
    during = F.dropout(torch.ones(100))
    dropkit.uninstall()
    torch.manual_seed(0)

    assert torch.equal(F.dropout(torch.ones(100)), before)
    assert not torch.equal(during, before)
    dropkit.uninstall()


def test_installed_restores_what_was():
    """The with block undoes its own install alone, also when it is left by an exception."""
    dropkit.install()
    with dropkit.installed():
        pass
    assert "Drop" in F.dropout(torch.ones(3, requires_grad=True)).grad_fn.name()
    dropkit.uninstall()

    with pytest.raises(ZeroDivisionError), dropkit.installed():
        _ = 1 / 0
    assert "Mul" in F.dropout(torch.ones(3, requires_grad=True)).grad_fn.name()


def test_installed_blocks_may_overlap():
    """The last block to end gives torch its dropout back, in whatever order they began."""
    first, second = dropkit.installed(), dropkit.installed()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert "Drop" in F.dropout(torch.ones(3, requires_grad=True)).grad_fn.name()

    second.__exit__(None, None, None)

    assert "Mul" in F.dropout(torch.ones(3, requires_grad=True)).grad_fn.name()


def test_below_autograd_nothing_is_recorded():
    """A caller that differentiates by itself, as torch's own C++ does, gets no graph from the operator."""
    x = torch.ones(3, requires_grad=True)
    with dropkit.installed(), torch._C._AutoDispatchBelowAutograd():
        assert not torch.dropout(x, 0.5, True).requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_native_dropout_returns_the_mask_it_used(dtype):
    """The mask and the gradient by torch's own derivative are those of the output, also where the input is 0."""
    x = torch.arange(500, dtype=dtype).requires_grad_()
    with dropkit.installed():
        torch.manual_seed(5)
        output, mask = torch.native_dropout(x, 0.25, True)
        torch.manual_seed(5)
        expected = dropout(x, 0.25)
    (grad,) = torch.autograd.grad(output, x, torch.ones_like(output))

    assert torch.equal(output, expected)
    assert torch.equal(mask, dropout(torch.ones_like(x), 0.25, key=dropkit.random.draw(seeded(5))) != 0)
    assert torch.equal(grad, (mask / 0.75).to(dtype))


@pytest.mark.parametrize("shape", [(40, 30), (700, 400)], ids=["small", "large"])
@pytest.mark.parametrize("transposed", [False, True], ids=["", "transposed"])
def test_the_mask_of_native_dropout_is_that_of_its_output(shape, transposed):
    """The mask has the same elements and strides as the output, whether it is made in one run or in several."""
    x = torch.zeros(shape).t() if transposed else torch.zeros(shape)
    with dropkit.installed():
        torch.manual_seed(5)
        output, mask = torch.native_dropout(x, 0.25, True)

    expected = dropout(torch.ones_like(x), 0.25, key=dropkit.random.draw(seeded(5))) != 0
    assert torch.equal(mask, expected)
    assert mask.stride() == output.stride() == x.stride()


def test_native_dropout_has_forward_mode():
    """Forward mode has the derivative of torch, which is kept."""
    x, tangent = torch.randn(50), torch.randn(50)
    with dropkit.installed(), torch.autograd.forward_ad.dual_level():
        output, mask = torch.native_dropout(torch.autograd.forward_ad.make_dual(x, tangent), 0.25, True)
        result = torch.autograd.forward_ad.unpack_dual(output).tangent
    # torch rounds the scale, the product with the mask and the product with the tangent.
    assert equal_but_for_rounding(result, tangent * mask / 0.75, 3)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("arguments", [(0.5, False), (0.0, True), (1.0, True), (0.5, None), (1.5, True)])
def test_native_dropout_keeps_torchs_contract(arguments):
    """Calls that drop nothing or everything, or fail, do so as in torch; uninstall restores torch's kernel."""
    results = []
    for install in (False, True, False):
        (dropkit.install if install else dropkit.uninstall)()
        torch.manual_seed(0)
        try:
            output, mask = torch.native_dropout(torch.ones(200), *arguments)
        except RuntimeError as error:
            output, mask = torch.tensor([0.0]), str(error).splitlines()[0]
        results.append((output, mask))
    (first, first_mask), (ours, our_mask), (last, last_mask) = results

    assert torch.equal(first, last)
    assert first_mask == last_mask if isinstance(first_mask, str) else torch.equal(first_mask, last_mask)
    if arguments == (0.5, None):
        assert set(ours.tolist()) == {0.0, 2.0}
        assert torch.equal(ours != 0, our_mask)
        assert not torch.equal(ours, first)
    else:
        assert torch.equal(ours, first)


@pytest.mark.parametrize(
    "call",
    [
        lambda: torch.dropout(torch.ones(3), 1.5, True),
        lambda: F.dropout(torch.arange(3), 0.5),
        lambda: F.alpha_dropout(torch.ones(3, dtype=torch.complex64), 0.5, True),
        lambda: F.dropout(torch.ones(3, requires_grad=True), inplace=True),
        lambda: torch.feature_dropout(torch.ones(3), 0.5, True),
        lambda: F.dropout(torch.ones(1).expand(3), inplace=True),
        lambda: torch.func.vmap(F.dropout)(torch.ones(2, 3)),
    ],
)
def test_errors_are_torchs_under_install(call):
    """A program that fails fails in the same way."""
    errors = []
    for install in (False, True):
        if install:
            dropkit.install()
        with pytest.raises(Exception, match=r".") as caught:
            call()
        errors.append((caught.type, str(caught.value).splitlines()[0]))
    assert errors[0] == errors[1]


def test_eval_is_left_alone_under_install(calls):
    """What drops nothing returns its input itself and runs no kernel."""
    input = torch.ones(4)
    with dropkit.installed():
        assert F.dropout(input, training=False) is input
        assert torch.nn.Dropout(0.0)(input) is input
        assert torch.nn.Dropout().eval()(input) is input
    assert calls.count == 0


def family() -> torch.nn.Module:
    shared = torch.nn.Dropout(0.3)
    return torch.nn.Sequential(
        torch.nn.Linear(4, 4),
        shared,
        torch.nn.Sequential(torch.nn.Dropout2d(0.2, inplace=True), shared),
        torch.nn.AlphaDropout(0.1).eval(),
        torch.nn.TransformerEncoderLayer(4, 2, 8, 0.4),
    )


def test_convert_changes_every_dropout_module_once():
    """`convert` returns the modules that it changed, a shared module under its first name."""
    changed = dropkit.convert(family())

    assert [str(change) for change in changed] == [
        "1: torch.nn.Dropout -> dropkit.nn.Dropout(p=0.3, inplace=False)",
        "2.0: torch.nn.Dropout2d -> dropkit.nn.Dropout2d(p=0.2, inplace=True)",
        "3: torch.nn.AlphaDropout -> dropkit.nn.AlphaDropout(p=0.1, inplace=False)",
        "4.dropout: torch.nn.Dropout -> dropkit.nn.Dropout(p=0.4, inplace=False)",
        "4.dropout1: torch.nn.Dropout -> dropkit.nn.Dropout(p=0.4, inplace=False)",
        "4.dropout2: torch.nn.Dropout -> dropkit.nn.Dropout(p=0.4, inplace=False)",
    ]
    assert dropkit.convert(changed[0].module) == []


def test_convert_keeps_all_else():
    """Objects, sharing, training flags, hooks, the printed model and the state dict are as before."""
    model = family()
    modules, flags, printed = list(model.modules()), [m.training for m in model.modules()], str(model)
    seen: list[object] = []
    model[1].register_forward_hook(lambda module, arguments, output: seen.append(module))

    dropkit.convert(model)

    assert all(a is b for a, b in zip(model.modules(), modules, strict=True))
    assert [m.training for m in model.modules()] == flags
    assert str(model) == printed
    assert model[1] is model[2][1]
    model[1](torch.ones(3))
    assert seen == [model[1]]
    copy.deepcopy(model)


def test_convert_leaves_subclasses_alone():
    """Subclasses of torch's modules keep their class, since they may behave differently."""

    class Mine(torch.nn.Dropout):
        pass

    model = Mine(0.5)

    assert dropkit.convert(model) == []
    assert type(model) is Mine


def test_convert_turns_the_model_itself():
    """A model that is itself a dropout module is converted."""
    model = torch.nn.Dropout(0.5)

    (change,) = dropkit.convert(model)

    assert isinstance(model, nn.Dropout)
    assert str(change).startswith("(the model itself): ")
    assert torch.equal(model(torch.ones(9), key=1), dropout(torch.ones(9), key=1))


def test_convert_refuses_what_is_no_module():
    """The error names the argument."""
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, got dict"):
        dropkit.convert({})
