"""The passes of an audit: forward and backward in training mode, forward in evaluation mode, nothing kept of either."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from dropkit.auditor.gradients import backward
from dropkit.auditor.inputs import fresh, leaves
from dropkit.auditor.module_tree import Held, drops, holds_rate
from dropkit.auditor.recorder import Recorder
from dropkit.auditor.snapshot import Untouched, untouched
from dropkit.auditor.snapshot import seed as seed_all
from dropkit.auditor.source_comments import is_named_so, means_it
from dropkit.auditor.train_mode import fast_paths, mixed, switch, tell
from dropkit.catalog import RATE_HOLDERS
from dropkit.modes import force_eager
from dropkit.torch_private import dynamo_is_loaded
from dropkit.trace import Form, Phase, Site, Switch, Trace

Call = Callable[..., Any]


def trace(
    model: nn.Module, held: Mapping[int, Held], call: Call, args: tuple[Any, ...], kwargs: dict[str, Any], seed: int
) -> Trace:
    """Run the model in both modes and write down what its dropouts did."""
    modules = [one.module for one in held.values()]
    stopped = backward_error = None
    reseeded = False
    faults: list[Switch] = []
    flags: dict[Phase, dict[int, bool]] = {}

    def again() -> Any:
        once_more, named = fresh((args, kwargs))
        return call(model, *once_more, **named)

    # Nothing can be seen inside of compiled code. If the compiler was never imported, there is none.
    with force_eager() if dynamo_is_loaded() else nullcontext():
        found, skipping = mixed(model, held), list[str]()
        if found:
            with untouched(modules) as state, state.careful():
                skipping += fast_paths(held, again)
        with untouched(modules) as state:
            recorder = Recorder(held, state)
            try:
                _warm_up(state, model, call, fresh((args, kwargs)), seed)
                for phase, run in ((Phase.TRAIN, _train), (Phase.EVAL, _evaluate)):
                    with state.careful():
                        faults += switch(model, phase)
                    flags[phase] = {id(module): module.training for module in modules}
                    state.without_grads()
                    _seed(seed)
                    backward_error = run(recorder, model, call, fresh((args, kwargs))) or backward_error
                    reseeded = reseeded or torch.initial_seed() != _unlikely(seed)
                with state.careful():
                    skipping += fast_paths(held, again)
            except Exception as error:
                # What was seen in training is worth having; of a model that cannot train there is nothing to tell.
                if recorder.phase is Phase.TRAIN and not _out_of_range(held, error):
                    raise
                stopped = f"{recorder.phase.value}: {type(error).__name__}: {error}"
    sites = [site for site in recorder.sites if site.p or site.drew(*Phase) or not _only_if_used(site)]
    sites += _unreached(held, recorder.sites)
    _know_more(sites, held, flags)
    return Trace(
        model=type(model).__name__,
        sites=tuple(sites),
        switches=tuple(dict.fromkeys(faults)),
        mixed=tuple(found),
        idle_rates=tuple(_idle_rates(held, sites, recorder.trained)),
        fast_paths=tuple(dict.fromkeys(skipping)),
        draws=tuple(dict.fromkeys(recorder.idle_draws)),
        backward_error=backward_error,
        reseeded=reseeded,
        branched=recorder.branched,
        stopped=stopped,
        seconds=recorder.seconds,
    )


def _unlikely(seed: int) -> int:
    """A seed that no model is likely to set itself, so that one that does is seen."""
    return (seed * 2_654_435_761 + 0x5EED_D20F) % 2**31


def _seed(number: int) -> None:
    seed_all(_unlikely(number))


def _warm_up(state: Untouched, model: nn.Module, call: Call, inputs: Any, seed: int) -> None:
    """Once unseen and undone: what a process does the first time only is no part of a step's time."""
    args, kwargs = inputs
    with state.careful(), torch.enable_grad():
        tell(model, Phase.TRAIN)
        state.without_grads()
        _seed(seed)
        backward(model, leaves(call(model, *args, **kwargs)), leaves(inputs))
    state.put_back()


def _train(recorder: Recorder, model: nn.Module, call: Call, inputs: Any) -> str | None:
    """The first line of what backward raised, if it did."""
    args, kwargs = inputs
    with torch.enable_grad():
        with recorder.watch(Phase.TRAIN, leaves(inputs)):
            outputs = call(model, *args, **kwargs)
            recorder.returned(leaves(outputs))
        with recorder.watch(Phase.BACKWARD):
            return backward(model, leaves(outputs), leaves(inputs))


def _evaluate(recorder: Recorder, model: nn.Module, call: Call, inputs: Any) -> None:
    args, kwargs = inputs
    with torch.no_grad(), recorder.watch(Phase.EVAL, leaves(inputs)):
        call(model, *args, **kwargs)


def _out_of_range(held: Mapping[int, Held], error: Exception) -> bool:
    """Whether an error is torch's about a rate that is no probability."""
    return "prob" in str(error) and any(one.rate is not None and not 0 <= one.rate <= 1 for one in held.values())


def _only_if_used(site: Site) -> bool:
    """Whether a site of rate 0 is not worth a line: attention and recurrent networks, which are there without it."""
    return site.form is Form.ATTENTION or site.kind in RATE_HOLDERS


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
        if site.place is not None and site.drew(Phase.EVAL):
            site.meant, site.named = means_it(site.place), is_named_so(site.place)


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
            holder = one.name.rpartition(".")[0]
            used = any(_under(site.name, one.name) or (_under(site.name, holder) and site.p == value) for site in sites)
            if rate and not used:
                yield one.name, attribute, value
