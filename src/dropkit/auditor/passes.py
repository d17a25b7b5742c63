"""The passes of an audit: forward and backward in training mode, forward in evaluation mode, nothing kept of either."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Container, Generator, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import fields, is_dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.graph import _engine_run_backward
from torch.utils._python_dispatch import TorchDispatchMode

from dropkit.auditor.recorder import Recorder
from dropkit.auditor.source import means_it
from dropkit.auditor.tree import Held, drops, holds_rate, rate_of
from dropkit.auditor.untouched import seed as seed_all
from dropkit.auditor.untouched import untouched
from dropkit.facts.trace import Form, Phase, Site, Switch, Trace

Call = Callable[..., Any]

_FUSED = torch.ops.aten._transformer_encoder_layer_fwd


def trace(
    model: nn.Module, held: Mapping[int, Held], call: Call, args: tuple[Any, ...], kwargs: dict[str, Any], seed: int
) -> Trace:
    """Run the model in both modes and write down what its dropouts did."""
    modules = [one.module for one in held.values()]
    stopped = backward_error = None
    reseeded = False
    faults: list[Switch] = []
    flags: dict[Phase, dict[int, bool]] = {}
    with _eagerly():
        mixed, fast_paths = _found(model, held, call, args, kwargs)
        with untouched(modules) as state:
            recorder = Recorder(held, state)
            try:
                _warm_up(model, modules, call, fresh((args, kwargs)), seed)
                for phase in (Phase.TRAIN, Phase.EVAL):
                    with state.careful():
                        faults += _switch(model, phase)
                    flags[phase] = {id(module): module.training for module in modules}
                    state.without_grads()
                    _seed(seed)
                    inputs = fresh((args, kwargs))
                    if phase is Phase.TRAIN:
                        backward_error = _train(recorder, model, call, inputs)
                    else:
                        _evaluate(recorder, model, call, inputs)
                    reseeded = reseeded or torch.initial_seed() != _unlikely(seed)
                with state.careful():
                    found = _fast_paths(model, held, call, args, kwargs)
                fast_paths += [name for name in found if name not in fast_paths]
            except Exception as error:
                if not _out_of_range(held):
                    raise
                stopped = f"{recorder.phase.value}: {type(error).__name__}: {error}"
    sites = [site for site in recorder.sites if site.p or site.drew(*Phase) or not _only_if_used(site)]
    sites += _unreached(held, recorder.sites)
    _know_more(sites, held, flags)
    return Trace(
        model=type(model).__name__,
        sites=tuple(sites),
        switches=tuple(dict.fromkeys(faults)),
        mixed=tuple(mixed),
        idle_rates=tuple(_idle_rates(held, sites, recorder.entered)),
        fast_paths=tuple(fast_paths),
        draws=tuple(dict.fromkeys(recorder.idle_draws)),
        backward_error=backward_error,
        reseeded=reseeded,
        stopped=stopped,
        seconds=recorder.seconds,
    )


def _unlikely(seed: int) -> int:
    """A seed that no model is likely to set itself, so that one that does is seen."""
    return (seed * 2_654_435_761 + 0x5EED_D20F) % 2**31


def _seed(number: int) -> None:
    seed_all(_unlikely(number))


def _warm_up(model: nn.Module, modules: list[nn.Module], call: Call, inputs: Any, seed: int) -> None:
    """Once unseen and undone: what a process does the first time only is no part of a step's time."""
    args, kwargs = inputs
    with untouched(modules) as state, state.careful(), torch.no_grad():
        _tell(model, Phase.TRAIN)
        _seed(seed)
        call(model, *args, **kwargs)


def _train(recorder: Recorder, model: nn.Module, call: Call, inputs: Any) -> str | None:
    args, kwargs = inputs
    with torch.enable_grad():
        with recorder.watch(Phase.TRAIN, leaves(inputs)):
            outputs = call(model, *args, **kwargs)
            recorder.returned(leaves(outputs))
        wanted = [one for one in leaves(outputs) if one.requires_grad and one.is_floating_point()]
        if not wanted:
            return None
        with recorder.watch(Phase.BACKWARD):
            return _backward(model, wanted, [one for one in leaves(inputs) if one.requires_grad])


def _backward(model: nn.Module, wanted: list[Tensor], inputs: list[Tensor]) -> str | None:
    """The gradients of the sum of the outputs, kept nowhere; or the first line of why there are none."""
    ones = tuple(torch.ones_like(one) for one in wanted)
    leaves = tuple(one for one in (*model.parameters(), *inputs) if one.requires_grad and one.is_leaf)
    if not leaves:
        return None
    # The engine itself, since what torch calls with it would be a function under our mode, and what is recomputed too.
    # Reentrant checkpoints know one way only, which writes `grad`.
    reentrant = _is_reentrant(wanted)
    try:
        _engine_run_backward(
            tuple(wanted), ones, False, False, () if reentrant else leaves,
            allow_unreachable=True, accumulate_grad=reentrant,
        )  # fmt: skip
    except Exception as error:
        return f"{type(error).__name__}: {error}".partition("\n")[0]
    return None


def _is_reentrant(tensors: list[Tensor]) -> bool:
    """Whether the graph of gradients has a reentrant checkpoint in it."""
    queue: list[Any] = [tensor.grad_fn for tensor in tensors]
    seen: set[Any] = set()
    while queue:
        node = queue.pop()
        if node is None or node in seen:
            continue
        if node.name() == "CheckpointFunctionBackward":
            return True
        seen.add(node)
        queue += [following for following, _ in node.next_functions]
    return False


def _evaluate(recorder: Recorder, model: nn.Module, call: Call, inputs: Any) -> None:
    args, kwargs = inputs
    with torch.no_grad(), recorder.watch(Phase.EVAL, leaves(inputs)):
        call(model, *args, **kwargs)


def _tell(module: nn.Module, phase: Phase) -> Any:
    """What `train()` or `eval()` returns.

    Raises:
        TypeError: the module has no two modes.
    """
    try:
        return module.train() if phase is Phase.TRAIN else module.eval()
    except NotImplementedError as error:
        raise TypeError(f"model must take train() and eval(), got {type(module).__name__}: {error}") from error


def _switch(model: nn.Module, phase: Phase) -> Iterator[Switch]:
    """Tell the model its mode, as users do, and note what does not keep to torch's contract."""
    for name, module in list(cast("Iterator[tuple[str, nn.Module]]", model.named_modules())):
        own = type(module).train is not nn.Module.train or type(module).eval is not nn.Module.eval
        answer = _tell(module, phase) if own or module is model else module
        if answer is not module:
            fault = f"{phase.value}() returns {type(answer).__name__} and not the module"
            yield Switch(name, type(module).__name__, fault)
    # Last, so that no part has the last word.
    _tell(model, phase)


@contextmanager
def _eagerly() -> Generator[None]:
    """Compiled code runs as the Python that it was compiled from: nothing can be seen inside of it."""
    compiler = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
    with compiler:
        yield


def _found(
    model: nn.Module, held: Mapping[int, Held], call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[list[str], list[str]]:
    """What the flags say before anyone changes them: dropouts that train in a model that evaluates."""
    if model.training:
        return [], []
    mixed = [one.name for one in held.values() if one.registered and _drops_inside(one.module) and one.module.training]
    if not mixed:
        return [], []
    with untouched([one.module for one in held.values()]) as state, state.careful():
        return mixed, _fast_paths(model, held, call, args, kwargs)


def _fast_paths(
    model: nn.Module, held: Mapping[int, Held], call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[str]:
    """The encoder layers that skip those of their dropouts that are in training mode: seen by running them."""
    suspects = {
        id(one.module): one.name
        for one in held.values()
        if isinstance(one.module, nn.TransformerEncoderLayer)
        and not one.module.training
        and any(drops(inner) and inner.training for inner in one.module.modules())
    }
    if not suspects:
        return []
    skipping: list[str] = []
    running: list[int] = []

    class Fused(TorchDispatchMode):
        supports_higher_order_operators = True

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if getattr(func, "overloadpacket", None) is _FUSED and running:
                skipping.append(suspects[running[-1]])
            return func(*args, **(kwargs or {}))

    def enter(module: nn.Module, *_: Any) -> None:
        if id(module) in suspects:
            running.append(id(module))

    def leave(module: nn.Module, *_: Any) -> None:
        if id(module) in suspects:
            running.pop()

    hooks = (
        nn.modules.module.register_module_forward_pre_hook(enter),
        nn.modules.module.register_module_forward_hook(leave, always_call=True),
    )
    try:
        args, kwargs = fresh((args, kwargs))
        with torch.no_grad(), Fused():
            call(model, *args, **kwargs)
    finally:
        for hook in hooks:
            hook.remove()
    return list(dict.fromkeys(skipping))


def _drops_inside(module: nn.Module) -> bool:
    return bool(rate_of(module))


def _out_of_range(held: Mapping[int, Held]) -> bool:
    return any(one.rate is not None and not 0 <= one.rate <= 1 for one in held.values())


def _only_if_used(site: Site) -> bool:
    """Whether a site of rate 0 is not worth a line: attention and recurrent networks, which are there without it."""
    return site.form is Form.ATTENTION or site.kind in ("MultiheadAttention", "LSTM", "GRU", "RNN")


def _unreached(held: Mapping[int, Held], reached: list[Site]) -> Iterator[Site]:
    """Dropouts of the tree that never ran."""
    names = {site.name for site in reached if site.is_module}
    for one in held.values():
        inside = holds_rate(one.module) and one.rate
        if not one.registered or one.name in names or not (drops(one.module) or inside):
            continue
        layers = one.module.num_layers if isinstance(one.module, nn.RNNBase) else None
        site = Site(one.name, type(one.module).__name__, Form.REGISTERED, None, (), one.rate, layers)
        holder = one.name.rpartition(".")[0]
        beside = (other for other in reached if not other.is_module and _under(other.name, holder))
        site.carries_rate = any(visit.p == one.rate for other in beside for visit in other.of(Phase.TRAIN))
        yield site


def _under(name: str, holder: str) -> bool:
    return not holder or name == holder or name.startswith(f"{holder}.")


def _know_more(sites: list[Site], held: Mapping[int, Held], flags: Mapping[Phase, Mapping[int, bool]]) -> None:
    """The flags of modules and of what holds them, and what the source says."""
    ids = {one.name: key for key, one in held.items()}
    train, evaluation = (flags.get(phase, {}) for phase in (Phase.TRAIN, Phase.EVAL))
    for site in sites:
        key = ids.get(site.name) if site.is_module else None
        if key is not None:
            site.flag_in_train, site.flag_in_eval = train.get(key), evaluation.get(key)
        holder = ids.get(site.name.rpartition(".")[0] if site.is_module else site.name)
        site.frozen = holder is not None and train.get(holder) is False
        site.meant = site.place is not None and site.drew(Phase.EVAL) and means_it(site.place)


def _idle_rates(
    held: Mapping[int, Held], sites: list[Site], entered: Container[int]
) -> Iterator[tuple[str, str, float]]:
    """Modules that ran and keep a dropout rate, and nothing in them drops or could."""
    for key, one in held.items():
        own = drops(one.module) or holds_rate(one.module) or type(one.module).__module__.startswith("torch.nn.")
        if own or key not in entered:
            continue
        for attribute, value in vars(one.module).items():
            rate = isinstance(value, float) and 0 < value < 1 and "dropout" in attribute.lower()
            if rate and not any(_under(site.name, one.name) for site in sites):
                yield one.name, attribute, value


def fresh(inputs: Any) -> Any:
    """A copy that a model may do with as it likes; tensors keep whether they require gradients.

    Raises:
        TypeError: something among the inputs cannot be copied.
    """
    memo: dict[int, Any] = {}
    for tensor in leaves(inputs):
        memo[id(tensor)] = tensor.detach().clone().requires_grad_(tensor.requires_grad)
    try:
        return copy.deepcopy(inputs, memo)
    except (TypeError, RuntimeError) as error:
        raise TypeError(f"inputs must be tensors, or containers that can be copied: {error}") from error


def leaves(value: Any, depth: int = 0) -> list[Tensor]:
    """The tensors in nested containers, dataclasses and objects with attributes."""
    if isinstance(value, Tensor):
        return [value]
    if depth > 8 or isinstance(value, (str, bytes, int, float, type(None))):
        return []
    inner: list[Any]
    if isinstance(value, Mapping):
        inner = list(cast("Mapping[Any, Any]", value).values())
    elif isinstance(value, (list, tuple, set, frozenset)):
        inner = list(cast("list[Any]", value))
    elif is_dataclass(value):
        inner = [getattr(cast("Any", value), field.name) for field in fields(value)]
    elif hasattr(value, "__dict__") and not isinstance(value, (nn.Module, type)):
        inner = list(cast("dict[str, Any]", vars(value)).values())
    else:
        return []
    return [tensor for one in inner for tensor in leaves(one, depth + 1)]
