"""Run a model, and report every dropout in it and what is wrong with it: the public `audit` and `Auditor`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from dropkit.auditor.batch import first_batch
from dropkit.auditor.call_arguments import must_take_nothing, run_with
from dropkit.auditor.module_tree import module_entries
from dropkit.auditor.passes import Step, run_passes
from dropkit.auditor.report import Report
from dropkit.auditor.report_rows import AuditFinding, totals
from dropkit.auditor.source_comments import silences
from dropkit.rules import RULES, Rule, TraceViolation
from dropkit.torch_private import AUDIT, FakeTensor, compiled_module, load_dynamo, require
from dropkit.trace import Phase, Site, Trace

# Audits set and restore random generators, which the whole process shares.
_lock = threading.RLock()


def audit(model: nn.Module, *inputs: Any, **kwargs: Any) -> Report:
    """Run a model in training mode, backward included, and in evaluation mode, and report every dropout in it.

    The report covers modules, functions, attention, recurrent networks and masks computed by hand. The model is left
    unchanged: parameters, buffers, gradients, training flags, attributes and all random generators are restored, also
    when the model raises. Compiled modules run uncompiled. The passes are seeded, so equal models give equal reports.
    An error in evaluation mode does not end the audit; the report has it as `stopped`.

    Args:
        model: any module. Inside `torch.compile`, `DataParallel` and `DistributedDataParallel` the wrapped one is used.
        *inputs: arguments of the model: tensors, NumPy arrays, containers of them, or a `DataLoader`, whose first batch
            is used. One small batch is enough. Floats of arrays get the model's dtype. The items of a single mapping or
            dataclass are passed by name and those of a single tuple or list by position, if `forward` accepts them;
            otherwise the batch is the only argument, or, if `forward` accepts no list, its first part is, as in
            `[inputs, labels]` from a loader.
        **kwargs: keyword arguments of the model.

    Returns:
        The report: `print` it, or use `findings`, `sites`, `table()`, `to_dict()` and `to_html()`.

    Raises:
        TypeError: `model` is not a module, is of a kind that cannot be audited, or does not accept `inputs`; the
            message says what to do.
        ValueError: its parameters have no values yet, or a loader yields no batch.

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
        call: function of the model and the inputs to run; `model(*inputs, **kwargs)` if None.
        ignore: codes of rules to skip, or prefixes of codes.
        seed: seed of both passes.
        group: a `torch.distributed` group whose ranks all audit at the same time. They compare their generators' states
            and masks to find out whether they would draw the same masks; not so inside of a block of `dropkit.shard`.
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
        load_dynamo()
        model = _unwrap(model)
        inputs = tuple(first_batch(value, model) for value in inputs)
        if not inputs and not kwargs and self.call is None:
            must_take_nothing(model)
        entries = module_entries(model)
        begins_alike = None if self.group is None else _begin_alike(self.group)

        def run(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Trace:
            return run_passes(Step(model, entries, self.call or _call, args, kwargs, self.seed))

        with _lock, torch.inference_mode(False):
            if len(inputs) == 1 and not kwargs and self.call is None:
                trace = run_with(model, inputs[0], run)
            else:
                trace = run(inputs, kwargs)
        if begins_alike is not None:
            trace = replace(trace, ranks_draw_alike=_draw_alike(trace, self.group) and begins_alike)
        return Report(
            model=trace.model,
            sites=trace.sites,
            findings=tuple(sorted(self._findings(trace), key=lambda finding: finding.severity.rank)),
            other_random=trace.other_random,
            totals=totals(trace),
            stopped=trace.stopped,
            backward_error=trace.backward_error,
        )

    def _findings(self, trace: Trace) -> Iterator[AuditFinding]:
        for rule in RULES:
            if rule.check_trace is None or rule.code.startswith(tuple(self.ignore)):
                continue
            for violation in rule.check_trace(trace):
                finding = _finding(rule, violation)
                if finding.place is None or not silences(finding.place, rule.code):
                    yield finding


def _call(model: nn.Module, *inputs: Any, **kwargs: Any) -> Any:
    return model(*inputs, **kwargs)


def _finding(rule: Rule, violation: TraceViolation) -> AuditFinding:
    site = violation.at if isinstance(violation.at, Site) else None
    return AuditFinding(
        code=rule.code,
        name=rule.name,
        message=violation.message or rule.message,
        severity=violation.severity or rule.severity,
        site=site.label if site is not None else str(violation.at) or "(the model)",
        place=site.place if site is not None else None,
        explanation=rule.explanation,
    )


def _unwrap(model: Any) -> nn.Module:
    """Return the module inside wrappers; raise an error if it cannot be audited."""
    if isinstance(model, torch.export.ExportedProgram):
        raise TypeError(
            "model must be a torch.nn.Module, got an ExportedProgram: audit the module it was exported from"
        )
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if any(cls.__name__ in ("FullyShardedDataParallel", "FSDPModule") for cls in type(model).__mro__):
        raise TypeError("model must be audited before its parameters are sharded, got one under FSDP")
    if type(model).__name__ == "OptimizedModule":
        return _unwrap(compiled_module(model))
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        return _unwrap(cast("Any", model).module)
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


def _begin_alike(group: Any) -> bool:
    """Whether the CPU's and the current device's generator have the same state on all ranks of a group."""
    state = [torch.random.get_rng_state()]
    if torch.cuda.is_initialized():
        state.append(torch.cuda.get_rng_state())
    states = _gather(state, group)
    return len(states) > 1 and all(all(map(torch.equal, other, states[0])) for other in states)


def _draw_alike(trace: Trace, group: Any) -> bool:
    """Whether the ranks, which run the training pass from one seed, drew the same masks, as far as all are long."""
    visits = [visit for site in trace.sites for visit in site.visits_in(Phase.TRAIN)]
    gathered = _gather([visit.mask_start for visit in visits if visit.mask_start is not None], group)
    return all(
        len({start[: min(map(len, starts))] for start in starts}) == 1 for starts in zip(*gathered, strict=False)
    )


def _gather(value: Any, group: Any) -> list[Any]:
    import torch.distributed as dist

    values: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(values, value, group)
    return values
