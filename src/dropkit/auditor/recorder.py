"""Record the dropouts of a running model by module hooks, a function mode and a dispatch mode.

Hooks and the function mode see which module or function drops, and with which arguments. The dispatch mode sees every
operator, called from Python, C++ or TorchScript, and so every draw of random numbers and the mask computed from it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from dropkit.auditor import masks
from dropkit.auditor.data_flow import DataFlow
from dropkit.auditor.module_tree import ModuleEntry, has_inner_dropout
from dropkit.auditor.operators import Operator, OperatorCall, describe, is_overload
from dropkit.auditor.provenance import Provenance, ProvenanceTable
from dropkit.auditor.random_draws import RandomDraws
from dropkit.auditor.sites import Scope, SiteTable
from dropkit.auditor.snapshot import ModelSnapshot
from dropkit.auditor.timing import Run, Stopwatch
from dropkit.containers import tensors
from dropkit.dropout_functions import DropoutFunction, dropout_functions
from dropkit.torch_private import dispatch_mode_stack, no_torch_function
from dropkit.trace import Origin, Phase, Place, RandomOperation, Site, Visit

# Functions that read values without calling an operator.
_READERS: frozenset[Any] = frozenset({Tensor.tolist, Tensor.numpy, Tensor.__array__})


class Recorder:
    """Everything observed of a model's dropout in one or several runs.

    Attributes:
        run: the operators of the training step with their seconds.
        has_control_flow: whether higher-order operators ran, whose branches are not seen.
    """

    def __init__(self, entries: Mapping[int, ModuleEntry], snapshot: ModelSnapshot) -> None:
        self.run: Run = []
        self.has_control_flow = False
        self._snapshot = snapshot
        self._table = ProvenanceTable()
        self._sites = SiteTable(entries)
        self._flow = DataFlow(self._table, snapshot.owns)
        self._draws = RandomDraws(self._sites, self._table, self._flow)
        self._operators: _OperatorMode | None = None

    @property
    def phase(self) -> Phase:
        return self._sites.phase

    @property
    def sites(self) -> list[Site]:
        """Sites that were reached, in order of execution."""
        return self._sites.sites

    @property
    def ran(self) -> dict[Phase, set[int]]:
        """Ids of the modules that ran, by phase."""
        return self._sites.ran

    @property
    def choices(self) -> dict[str, Place | None]:
        """By name of a module the line that drew a random number which Python read in training."""
        return self._draws.choices

    def other_random(self, sites: Collection[Site]) -> list[RandomOperation]:
        """Random operations that none of the sites is."""
        return self._draws.other(sites)

    @property
    def timed(self) -> Iterable[tuple[Visit, int]]:
        """Visits, and numbers of the operators whose time is theirs."""
        return self._draws.timed

    @property
    def factors_in_eval(self) -> frozenset[float]:
        """Numbers that tensors are multiplied by in evaluation mode."""
        return frozenset(self._flow.factors_in_eval)

    @contextmanager
    def watch(self, phase: Phase, inputs: Iterable[Tensor] = ()) -> Generator[None]:
        """Observe this thread, and the threads that run its backward pass, in a `with` block."""
        self._sites.begin(phase)
        self._flow.begin(phase, inputs)
        with ExitStack() as stack:
            stack.enter_context(warnings.catch_warnings())
            # From compiled modules, which run uncompiled here.
            warnings.filterwarnings("ignore", message="Using `torch.compile.module.` when there are global hooks")
            before = register_module_forward_pre_hook(self._if_watched(self._enter))
            stack.callback(before.remove)
            after = register_module_forward_hook(self._if_watched(self._leave), always_call=True)
            stack.callback(after.remove)
            stack.enter_context(_FunctionMode(self))
            self._operators = stack.enter_context(_OperatorMode(self))
            stack.callback(self._release)
            yield
        self._sites.end()

    def _release(self) -> None:
        """Drop references to tensors, and to the mode, which refers to this object."""
        self._flow.release()
        self._operators = None

    def returned(self, outputs: Iterable[Tensor]) -> None:
        """Note the outputs at the end of the forward."""
        self._flow.end(outputs)

    def _if_watched(self, hook: Callable[..., None]) -> Callable[..., None]:
        """Restrict a hook, which is called in every thread, to the threads in which our mode is active."""

        def guarded(module: nn.Module, *rest: Any) -> None:
            if self._operators in dispatch_mode_stack():
                hook(module, *rest)

        return guarded

    def _enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self._sites.enter_module(module, next(tensors(args), None))

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        scope, first_output = self._sites.leave(), next(tensors(output), None)
        if scope is None or first_output is None:
            return
        if scope.visit is not None and not has_inner_dropout(module):
            self._finish(scope, first_output)
        elif isinstance(module, nn.RNNBase):
            self._table.set(first_output, Provenance(Origin(scope.kind, scope.kind), first_output.stride(-1)))

    def call(self, function: DropoutFunction, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Run a dropout function: as a site of its own, or as part of the dropout module that calls it."""
        p, training, inplace = function.arguments(args, kwargs)
        scope = self._sites.dropping
        if scope is not None and scope.visit is not None:
            if scope.visit.function is None:
                scope.visit.function, scope.visit.inplace = function.name, inplace
                scope.visit.p = scope.visit.p if p is None else p
            return func(*args, **kwargs)
        self._sites.enter_function(function, p, training, inplace, next(tensors([*args, *kwargs.values()]), None))
        scope = None
        try:
            output = func(*args, **kwargs)
        finally:
            scope = self._sites.leave()
        first_output = next(tensors(output), None)
        if first_output is not None and scope is not None and not function.attention:
            self._finish(scope, first_output)
        return output

    def read(self, args: Sequence[Any]) -> None:
        """Note that Python reads the values of tensors."""
        for tensor in tensors(args):
            self._draws.read(tensor)
            self._flow.record_use(tensor, "Python")

    def _finish(self, scope: Scope, output: Tensor) -> None:
        """Note what only the output shows: that nothing was dropped, or that tokens are missing."""
        visit, site = scope.visit, scope.site
        if visit is not None and scope.input is not None:
            if masks.count_missing(visit, scope.input, output):
                return
            if any(visit is other for other in self._draws.indirect):
                masks.count_zeros(visit, scope.input, output)
        if visit is not None and site is not None and scope.input is not None and not visit.is_active:
            self._flow.record_inactive(visit, site, scope.input, output)

    def before_operator(self, operator: Operator, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Copy the model's tensors that the operator writes."""
        if operator.written:
            self._snapshot.copy_before_write(operator, args, kwargs)

    def after_operator(self, call: OperatorCall) -> None:
        """Note an operator that has run."""
        if self.phase is Phase.BACKWARD and not self._sites.is_inside:
            # A gradient; recomputation runs inside modules and functions.
            self._draws.record_backward(call)
        else:
            self._draws.record_forward(call)


class _FunctionMode(TorchFunctionMode):
    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder, self._dropout_functions = recorder, dropout_functions()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        try:
            function = self._dropout_functions.get(func)
            is_reader = function is None and func in _READERS
        except TypeError:  # some callables have no hash
            function, is_reader = None, False
        if is_reader:
            self._recorder.read(args)
        return func(*args, **kwargs) if function is None else self._recorder.call(function, func, args, kwargs)


class _OperatorMode(Stopwatch):
    def __init__(self, recorder: Recorder) -> None:
        super().__init__([] if recorder.phase is Phase.EVAL else recorder.run)
        self._recorder = recorder

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not is_overload(func):
            self._recorder.has_control_flow = True
            return func(*args, **kwargs)
        operator = describe(func)
        self._recorder.before_operator(operator, args, kwargs)
        output, number = self.timed(func, args, kwargs), len(self.run) - 1
        if self._recorder.phase is Phase.EVAL:
            number = None
        with no_torch_function():
            self._recorder.after_operator(OperatorCall.of(func, operator, args, kwargs, output, number))
        return output
