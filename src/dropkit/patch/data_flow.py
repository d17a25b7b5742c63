"""The data flow of a model, read from the autograd graph of one call: what comes before a batch norm, and which modules
end a residual branch."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage] (the base class of all)

# A node of the autograd graph, and all its inputs: nodes, or None where no gradient flows.
Node = Any


@dataclass(slots=True)
class DataFlow:
    """What one call of a model shows.

    Attributes:
        outputs: for each module that was called, in order, the nodes that made its outputs.
        norm_inputs: the nodes that made inputs of batch norms.
        result: the nodes that made the output of the model.
    """

    outputs: dict[nn.Module, list[Node]] = field(default_factory=dict[nn.Module, "list[Node]"])
    norm_inputs: list[Node] = field(default_factory=list[Node])
    result: list[Node] = field(default_factory=list[Node])

    def before_batch_norm(self) -> set[nn.Module]:
        """Modules with an output from which a batch norm is computed."""
        before = _ancestors(self.norm_inputs)
        return {module for module, nodes in self.outputs.items() if not before.isdisjoint(nodes)}

    def residual_branches(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """Modules whose output, in each of their calls, is added to what their input came from; and those sometimes.

        Of several modules with one output, as a layer and the Sequential it ends, the last to return counts.
        """
        ends = {_branch(*node.next_functions) for node in _ancestors(self.result) if _is_sum(node)} - {None}
        last = {node: module for module, nodes in self.outputs.items() for node in nodes}
        modules = [module for module in self.outputs if any(last[node] is module for node in self.outputs[module])]
        always = [module for module in modules if ends.issuperset(self.outputs[module])]
        sometimes = [m for m in modules if m not in always and not ends.isdisjoint(self.outputs[m])]
        return always, sometimes


def trace(model: nn.Module, example: Any) -> DataFlow:
    """Run `model` once in evaluation mode, and return its data flow. Flags, statistics and gradients are kept.

    Args:
        model: any module whose output depends on its input or parameters by operations that have gradients.
        example: its input: a tensor, a tuple of positional arguments, or a dict of keyword arguments.
    """
    flow = DataFlow()
    args, kwargs = _arguments(example)
    with _evaluated(model), _recorded(model, flow), torch.enable_grad():
        output = model(*args, **kwargs)
    flow.result = [tensor.grad_fn for tensor in _tensors(output) if tensor.grad_fn is not None]
    return flow


@contextmanager
def _recorded(model: nn.Module, flow: DataFlow) -> Generator[None]:
    def after(module: nn.Module, args: Any, output: Any) -> None:
        nodes = [tensor.grad_fn for tensor in _tensors(output)[:1] if tensor.grad_fn is not None]
        # Removed first, so that the last module to return comes last.
        flow.outputs[module] = flow.outputs.pop(module, []) + nodes

    def before(module: nn.Module, args: tuple[Any, ...]) -> None:
        flow.norm_inputs.extend(t.grad_fn for t in _tensors(args)[:1] if t.grad_fn is not None)

    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    handles = [module.register_forward_hook(after) for module in model.modules() if module is not model]
    handles += [module.register_forward_pre_hook(before) for module in norms]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _evaluated(model: nn.Module) -> Generator[None]:
    """Evaluation mode, with gradients for all parameters."""
    flags = [(module, module.training) for module in model.modules()]
    frozen = [p for p in model.parameters() if not p.requires_grad and p.is_floating_point()]
    try:
        for module, _ in flags:
            module.training = False
        for parameter in frozen:
            parameter.requires_grad_(True)
        yield
    finally:
        for module, training in flags:
            module.training = training
        for parameter in frozen:
            parameter.requires_grad_(False)


def _arguments(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(example, Mapping):
        named = cast("Mapping[str, Any]", example)
        return (), {name: _with_gradient(value) for name, value in named.items()}
    args = cast("tuple[Any, ...]", example) if isinstance(example, tuple) else (example,)
    return tuple(map(_with_gradient, args)), {}


def _with_gradient(value: Any) -> Any:
    if isinstance(value, Tensor) and value.is_floating_point():
        # A clone has a node, and may be written in place.
        return value.detach().requires_grad_().clone()
    return value


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = list(cast("Mapping[Any, Any]", value).values())
    if isinstance(value, (tuple, list)):
        return [tensor for item in cast("Iterable[Any]", value) for tensor in _tensors(item)]
    return []


def _ancestors(nodes: Iterable[Node]) -> set[Node]:
    """These nodes and all from which they are computed."""
    found: set[Node] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += [parent for parent, _ in node.next_functions if parent is not None]
    return found


def _is_sum(node: Node) -> bool:
    parents = [parent for parent, _ in node.next_functions]
    return node.name().startswith("AddBackward") and len(parents) == 2 and None not in parents


def _branch(first: tuple[Node, int], second: tuple[Node, int]) -> Node | None:
    """The addend with more operations of its own, if both come from one tensor. The other is the skip connection."""
    a, b = _ancestors([first[0]]), _ancestors([second[0]])
    # A parameter that two branches share is no input of both.
    if all(node.name().endswith("AccumulateGrad") for node in a & b) or len(a) == len(b):
        return None
    return first[0] if len(a) > len(b) else second[0]
