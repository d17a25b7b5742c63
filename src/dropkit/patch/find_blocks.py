"""Find the feed-forward blocks of a model by what they compute, whatever library they are from.

A module has one if a method of it that takes one tensor returns what two products with an elementwise activation
between return, but for dropout, a residual connection and a normalisation after them. The method is called with random
numbers, and what its modules are given and return is compared with that.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropkit.catalog import ACTIVATION_KINDS
from dropkit.nn.submatrix import is_product, sizes_of
from dropkit.patch.batchwise_block import BatchwiseBlock, Block
from dropkit.patch.batchwise_sequential import BatchwiseSequential, is_dropout
from dropkit.patch.rate_sites import drops
from dropkit.torch_private import has_forward_hooks

# What such a method is called in torch and transformers. "forward" comes last: it may split its input for the others.
_METHODS = ("_ff_block", "ff_chunk", "feed_forward_chunk", "forward")
# Activations that a method may call as functions.
_FUNCTIONS: tuple[Callable[[Tensor], Tensor], ...] = (
    F.relu, F.gelu, partial(F.gelu, approximate="tanh"), F.silu, torch.tanh, torch.sigmoid, F.elu, F.leaky_relu, F.mish,
    F.softplus, F.relu6, F.hardswish,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Found:
    """A module with a feed-forward block, or with the reason why it is left."""

    module: nn.Module
    block: Block | str


def find_blocks(model: nn.Module, besides: list[nn.Sequential]) -> list[Found]:
    """The blocks of a model, innermost first, and modules that look as if they had one, with the reason against it.

    Args:
        besides: modules that are not to be searched.
    """
    taken = {inner for module in besides for inner in module.modules()}
    found: list[Found] = []
    # Modules come before those that hold them.
    for module in reversed(list(model.modules())):
        if module in taken or isinstance(module, (BatchwiseBlock, BatchwiseSequential)):
            continue
        method = next((name for name in _METHODS if _takes_one_tensor(module, name)), None)
        if method is None or not taken.isdisjoint(module.modules()) or not _may_have_block(module, method):
            continue
        block = _block_or_reason(module, method)
        found.append(Found(module, block))
        if isinstance(block, Block):
            taken.update(module.modules())
    return found[::-1]


def _takes_one_tensor(module: nn.Module, name: str) -> bool:
    method = getattr(type(module), name, None)
    # An attribute of the module itself would hide whatever its class has.
    if method is None or name in vars(module) or type(module) is nn.Sequential:
        return False
    try:
        parameters = list(inspect.signature(method).parameters.values())[1:]
    except (TypeError, ValueError):  # of what is not written in Python
        return False
    return len(parameters) == 1 and parameters[0].kind is parameters[0].POSITIONAL_OR_KEYWORD


def _may_have_block(module: nn.Module, method: str) -> bool:
    """Whether a module holds products that fit together. Methods with a telling name choose among any layers.

    Other modules have two products or, with a gate, three, and no other weights but those of norms and activations.
    """
    leaves = [inner for inner in module.modules() if next(inner.children(), None) is None]
    products = [leaf for leaf in leaves if is_product(leaf)]
    if method == "forward":
        kinds = {leaf: type(leaf).__name__ for leaf in leaves if leaf not in products}
        others = [leaf for leaf, kind in kinds.items() if "Norm" not in kind and kind not in ACTIVATION_KINDS]
        if len(products) not in (2, 3) or any(next(leaf.parameters(), None) is not None for leaf in others):
            return False
    outputs = [sizes_of(product)[0] for product in products[:-1]]
    return any(sizes_of(last)[1] in outputs for last in products[1:])


class _NoBlock(Exception):
    """The reason why a module is left."""


def _block_or_reason(module: nn.Module, method: str) -> Block | str:
    if any(map(has_forward_hooks, module.modules())):
        return "it has hooks, which may change what it computes"
    if hasattr(module, "p") or hasattr(module, "rate"):
        return "it has an attribute p or rate of its own"
    try:
        with _probed(module):
            return _read(module, method, _record(module, method))
    except _NoBlock as reason:
        return str(reason)


@dataclass(slots=True)
class _Call:
    module: nn.Module
    input: Tensor
    output: Tensor


@dataclass(slots=True)
class _Run:
    """What one call of a method with `input` shows: its result, and the calls of modules without modules in them."""

    input: Tensor
    result: Tensor
    calls: list[_Call]


@contextmanager
def _probed(module: nn.Module) -> Generator[None]:
    """Run without gradients, and in evaluation mode; restore flags and random numbers."""
    flags = {inner: inner.training for inner in module.modules()}
    devices = {tensor.device for tensor in module.parameters() if tensor.device.type == "cuda"}
    try:
        with torch.random.fork_rng(devices=sorted(devices, key=str)), torch.no_grad():
            yield
    finally:
        for inner, flag in flags.items():
            inner.training = flag


def _record(module: nn.Module, method: str) -> _Run:
    """Call the method in evaluation mode, and once more with the flags of modules that hold others set, which decide
    whether functions drop.
    """
    leaves = [inner for inner in module.modules() if next(inner.children(), None) is None]
    calls: list[_Call] = []

    def after(inner: nn.Module, args: Any, output: Any) -> None:
        # Copied, because activations may work in place.
        calls.append(_Call(inner, *(value.clone() for value in (args[0], output))))

    handles = [leaf.register_forward_hook(after) for leaf in leaves]
    weight = next(parameter for inner in leaves if is_product(inner) for parameter in inner.parameters())
    call, reason = getattr(module, method), ""
    try:
        for width in {sizes_of(leaf)[1]: None for leaf in leaves if is_product(leaf)}:
            module.eval()
            input = torch.randn(2, 3, width, generator=torch.Generator().manual_seed(0))
            # Large numbers tell ReLU from ReLU6, and small ones tanh from a hard one.
            input = (input * torch.tensor([1.0, 50.0]).view(2, 1, 1)).to(weight)
            calls.clear()
            try:
                result = call(input.clone())
            except Exception as error:  # of another width, or a module that raises whatever it likes
                reason = f"{method} of one tensor raised {type(error).__name__}"
                continue
            run = _Run(input, result, list(calls))
            for inner in module.modules():
                inner.training = inner not in leaves
            if not _equal(call(input.clone()), result):
                raise _NoBlock("it drops by a call of a function, at a rate that dropkit does not know")
            return run
        raise _NoBlock(reason)
    finally:
        for handle in handles:
            handle.remove()


def _read(module: nn.Module, method: str, run: _Run) -> Block:
    names = {inner: name for name, inner in cast("Iterator[tuple[str, nn.Module]]", module.named_modules())}
    at = [index for index, call in enumerate(run.calls) if is_product(call.module)]
    if len(at) not in (2, 3) or len({run.calls[index].module for index in at}) != len(at):
        raise _NoBlock("it does not call two linear layers, or three with a gate, once each")
    first, *gates, last = (run.calls[index] for index in at)
    if not all(_equal(call.input, run.input) for call in (first, *gates)):
        raise _NoBlock("its first linear layer does not get its input as it is")
    if any(drops(call.module) for call in run.calls[: at[0]]):
        raise _NoBlock("it drops its input before its first linear layer")
    between = [call.module for call in run.calls[at[0] : at[-1]] if not is_product(call.module)]
    if any(drops(inner) and not is_dropout(inner) for inner in between):
        raise _NoBlock("what drops between its linear layers is not torch's or dropkit's Dropout")
    functions = [*_functions_in(module, names, between), *((function, function) for function in _FUNCTIONS)]
    # Either of the first two may be the one that is activated.
    orders = [(first, gate) for gate in gates] + [(gate, first) for gate in gates] or [(first, None)]
    for activated, gate in orders:
        for name, function in functions:
            if _is_activation(function, activated.output, None if gate is None else gate.output, last.input):
                ending = _ending(run, last, run.calls[at[-1] + 1 :], names)
                gate_name = None if gate is None else names[gate.module]
                return Block(method, names[activated.module], name, names[last.module], gate_name, *ending)
    raise _NoBlock("what lies between its linear layers is not an elementwise activation")


def _functions_in(
    module: nn.Module, names: dict[nn.Module, str], between: list[nn.Module]
) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Modules and attributes that may be the activation, by their names in the module."""
    yield from ((names[inner], inner) for inner in between if not drops(inner))
    for inner, prefix in names.items():
        for name, value in vars(inner).items():
            if callable(value) and "act" in name and not isinstance(value, nn.Module):
                yield (f"{prefix}.{name}" if prefix else name), value


def _is_activation(function: Callable[..., Any], before: Tensor, gate: Tensor | None, after: Tensor) -> bool:
    """Whether a function leads to what the last product gets, and does so element by element."""

    def apply(units: slice) -> Tensor:
        activated = function(before[..., units].clone())
        return activated if gate is None else activated * gate[..., units]

    try:
        # Other columns may be rounded otherwise, by other instructions.
        return _equal(apply(slice(None)), after) and torch.allclose(
            apply(slice(1, None, 2)), after[..., 1::2], rtol=1e-2, atol=1e-4
        )
    except Exception:  # a function that takes other arguments, and raises whatever it likes
        return False


def _ending(
    run: _Run, last: _Call, calls: list[_Call], names: dict[nn.Module, str]
) -> tuple[tuple[str, ...], bool, str | None]:
    """How the result follows from the output of the last product: dropout layers, residual connection, norm."""
    after = tuple(names[call.module] for call in calls if drops(call.module))
    if not all(_equal(call.input, last.output) for call in calls if drops(call.module)):
        raise _NoBlock("what drops after its linear layers drops something else than their output")
    norms = [call.module for call in calls if not drops(call.module)]
    for norm in (None, *norms):
        for is_residual in (False, True):
            can_add = is_residual and last.output.shape == run.input.shape
            output = last.output + run.input if can_add else last.output
            if _equal(run.result, output if norm is None else norm(output)):
                return after, is_residual, None if norm is None else names[norm]
    raise _NoBlock("what follows its linear layers is more than dropout, a residual connection and a norm")


def _equal(one: Any, other: Any) -> bool:
    return isinstance(one, Tensor) and isinstance(other, Tensor) and torch.equal(one, other)
