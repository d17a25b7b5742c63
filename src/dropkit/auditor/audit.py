"""audit: every dropout of a running model, functional ones too, and what is wrong with it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from dropkit.auditor.call_arguments import run_with
from dropkit.auditor.module_tree import tree
from dropkit.auditor.passes import trace as run
from dropkit.auditor.report import AuditFinding, Report, totals
from dropkit.auditor.savings import savings
from dropkit.auditor.source_comments import silences
from dropkit.patch import install
from dropkit.rules import RULES, Rule, TraceViolation
from dropkit.torch_private import AUDIT, FakeTensor, compiled_module, require
from dropkit.trace import Site, Trace

# Audits set and restore generators, which are the process's.
_one_at_a_time = threading.RLock()


def audit(model: nn.Module, *inputs: Any, **kwargs: Any) -> Report:
    """Run `model(*inputs, **kwargs)` once in training mode, backward included, and once in evaluation mode, and report
    every dropout in it: modules, functions, attention, recurrent networks, masks drawn by hand.

    Nothing stays behind: parameters, buffers, gradients, training flags, attributes and the states of all generators
    are as before, also when the model raises. Compiled parts run uncompiled meanwhile. The passes are seeded, so equal
    models give equal reports. An error in evaluation mode does not end the audit: the report says `stopped`.

    Args:
        model: any module. What `torch.compile`, `DataParallel` and `DistributedDataParallel` wrap is audited inside.
        *inputs: what the model takes; tensors, or containers of them. One small batch says it all. A single mapping or
            dataclass gives the arguments by name where `forward` takes such names, a single tuple or list gives them
            by position; otherwise it is the one argument, or, where `forward` takes no list, its first part is, as in
            `[inputs, labels]` from a loader.
        **kwargs: the same by name.

    Returns:
        The report: `print` it, or see `findings`, `sites`, `table()`, `to_dict()` and `to_html()`.

    Raises:
        TypeError: `model` is no module, or of a kind that cannot be audited, or does not take `inputs`; the message
            says what to do.
        ValueError: its parameters have no values yet.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 2))
        >>> report = dropkit.audit(model, torch.randn(16, 4))
        >>> [(site.name, site.p, site.kind) for site in report.sites]
        [('1', 0.5, 'Dropout')]
        >>> report.findings
        ()
    """
    return Auditor().audit(model, *inputs, **kwargs)


@dataclass(frozen=True, slots=True)
class Auditor:
    """An audit with options.

    Attributes:
        call: what to run, a function of the model and the inputs; `model(*inputs, **kwargs)` if None.
        ignore: codes of rules that are not asked, or beginnings of them.
        seed: chooses the masks of both passes.
        group: a `torch.distributed` group whose ranks all audit at the same time: they compare the states of their
            generators, and find out whether they would draw the same masks.
    """

    call: Callable[..., Any] | None = None
    ignore: Sequence[str] = ()
    seed: int = 0
    group: Any = None

    def __post_init__(self) -> None:
        codes = (self.ignore,) if isinstance(self.ignore, str) else tuple(self.ignore)
        for code in codes:
            if not code or not any(rule.code.startswith(code.upper()) for rule in RULES):
                raise ValueError(f"ignore must hold codes such as DRP101 or DRP1, got {code!r}")
        object.__setattr__(self, "ignore", tuple(code.upper() for code in codes))

    def audit(self, model: nn.Module, *inputs: Any, **kwargs: Any) -> Report:
        """See `dropkit.audit`."""
        require(AUDIT)
        model = _runnable(model)
        held = tree(model)
        alike = None if self.group is None else _alike(self.group)

        def traced(args: tuple[Any, ...], named: dict[str, Any]) -> Trace:
            return run(model, held, self.call or _call, args, named, self.seed)

        with _one_at_a_time, torch.inference_mode(False):
            if len(inputs) == 1 and not kwargs and self.call is None:
                trace = run_with(model, inputs[0], traced)
            else:
                trace = traced(inputs, kwargs)
        trace = replace(trace, alike_on_all_ranks=alike)
        saved = None
        if install._library is None and _drops_on_cpu(trace):
            saved = savings(trace.sites)
        return Report(
            model=trace.model,
            sites=trace.sites,
            findings=tuple(sorted(_findings(trace, self._asked()), key=lambda one: one.severity.rank)),
            draws=trace.draws,
            totals=totals(trace, saved),
            stopped=trace.stopped,
            backward_error=trace.backward_error,
        )

    def _asked(self) -> list[Rule]:
        return [rule for rule in RULES if not rule.code.startswith(tuple(self.ignore))]


def _call(model: nn.Module, *inputs: Any, **kwargs: Any) -> Any:
    return model(*inputs, **kwargs)


def _findings(trace: Trace, rules: Sequence[Rule]) -> Iterator[AuditFinding]:
    for rule in rules:
        for sight in rule.check_trace(trace) if rule.check_trace is not None else ():
            finding = _finding(rule, sight)
            if finding.place is None or not silences(finding.place, rule.code):
                yield finding


def _finding(rule: Rule, sight: TraceViolation) -> AuditFinding:
    site = sight.at if isinstance(sight.at, Site) else None
    return AuditFinding(
        code=rule.code,
        name=rule.name,
        message=sight.message or rule.message,
        severity=sight.severity or rule.severity,
        site=site.label if site is not None else str(sight.at) or "(the model)",
        place=site.place if site is not None else None,
        explanation=rule.explanation,
    )


def _runnable(model: Any) -> nn.Module:
    """The module that can be run and seen, out of what wraps it."""
    if isinstance(model, torch.export.ExportedProgram):
        raise TypeError(
            "model must be a torch.nn.Module, got an ExportedProgram: audit the module it was exported from"
        )
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    kind = type(model).__name__
    if kind in ("FullyShardedDataParallel",) or any(one.__name__ == "FSDPModule" for one in type(model).__mro__):
        raise TypeError("model must be audited before its parameters are sharded, got one under FSDP")
    if kind == "OptimizedModule":
        return _runnable(compiled_module(model))
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        return _runnable(cast("Any", model).module)
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if is_lazy(value):
            raise ValueError(f"model must have its parameters, got {name} uninitialized: run it once before the audit")
        if value.is_inference():
            raise ValueError(f"model must be made outside of torch.inference_mode(), got {name} from inside")
        if isinstance(value, FakeTensor):
            raise ValueError(f"model must have its values, got {name} made under FakeTensorMode")
        if value.is_meta:
            raise ValueError(f"model must have its values, got {name} on the meta device")
    return model


def _drops_on_cpu(trace: Trace) -> bool:
    return any(visit.device == "cpu" for site in trace.sites for visit in site.visits)


def _alike(group: Any) -> bool:
    """Whether all ranks of a group have their generators in the same state, the CPU's and the current device's."""
    import torch.distributed as dist

    state = [torch.random.get_rng_state()]
    if torch.cuda.is_initialized():
        state.append(torch.cuda.get_rng_state())
    states: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(states, state, group)
    return len(states) > 1 and all(all(map(torch.equal, one, states[0])) for one in states)
