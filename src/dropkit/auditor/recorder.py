"""Watching a model run: its modules by hooks, the functions it calls and the operators below them by modes of torch.

Hooks and the function mode say who drops and what was asked for; the dispatch mode sees every operator, from Python,
C++ and TorchScript alike, and so whatever draws, with the mask that comes of it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from dropkit.auditor.data_flow import Flow
from dropkit.auditor.module_tree import Held, holds_rate
from dropkit.auditor.operators import Operator, Ran, describe, is_overload, tensors
from dropkit.auditor.provenance import Ledger, Made
from dropkit.auditor.random_draws import Draws
from dropkit.auditor.sites import Scope, Sites
from dropkit.auditor.snapshot import Untouched
from dropkit.dropout_functions import DropoutFunction, dropout_functions
from dropkit.torch_private import TorchDispatchMode, dispatch_mode_stack, no_torch_function
from dropkit.trace import Draw, Origin, Phase, Site

# What no operator sees.
_READERS: frozenset[Any] = frozenset({Tensor.tolist, Tensor.numpy, Tensor.__array__})


class Recorder:
    """Everything seen of a model's dropout, in one or several runs."""

    def __init__(self, held: Mapping[int, Held], state: Untouched) -> None:
        self.seconds = 0.0
        self.branched = False
        self._state = state
        self._ledger = Ledger()
        self._sites = Sites(held)
        self._flow = Flow(self._ledger, state.holds)
        self._draws = Draws(self._sites, self._ledger, self._flow)
        self._operators: _Operators | None = None

    @property
    def phase(self) -> Phase:
        return self._sites.phase

    @property
    def sites(self) -> list[Site]:
        """Those that were reached, in order of execution."""
        return self._sites.all

    @property
    def trained(self) -> set[int]:
        """The ids of the modules that ran in training mode."""
        return self._sites.trained

    @property
    def idle_draws(self) -> list[Draw]:
        """Random numbers that were no dropout."""
        return self._draws.idle

    @contextmanager
    def watch(self, phase: Phase, inputs: Iterable[Tensor] = ()) -> Generator[None]:
        """See what runs in this thread, and in those that run its backward pass, for the length of a `with` block."""
        self._sites.begin(phase)
        self._flow.begin(inputs)
        with ExitStack() as stack:
            stack.enter_context(warnings.catch_warnings())
            # Of compiled parts, which run uncompiled here.
            warnings.filterwarnings("ignore", message="Using `torch.compile.module.` when there are global hooks")
            before = register_module_forward_pre_hook(self._if_watched(self._enter))
            stack.callback(before.remove)
            after = register_module_forward_hook(self._if_watched(self._leave), always_call=True)
            stack.callback(after.remove)
            stack.enter_context(_Functions(self))
            self._operators = stack.enter_context(_Operators(self))
            stack.callback(self._flow.forget)
            yield
        self._sites.end()

    def returned(self, outputs: Iterable[Tensor]) -> None:
        """The forward is over, and this is what came of it."""
        self._flow.end(outputs)

    def _if_watched(self, hook: Callable[..., None]) -> Callable[..., None]:
        """Hooks are the whole process's; modes are a thread's, and of the threads that run its backward pass."""

        def guarded(module: nn.Module, *rest: Any) -> None:
            if self._operators in dispatch_mode_stack():
                hook(module, *rest)

        return guarded

    def _enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self._sites.enter_module(module, next(tensors(args), None))

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        scope, made = self._sites.leave(), next(tensors(output), None)
        if scope is None or made is None:
            return
        if scope.visit is not None and not holds_rate(module):
            self._passed(scope, made)
        elif isinstance(module, nn.RNNBase):
            self._ledger.note(made, Made(Origin(scope.kind, scope.kind), made.stride(-1)))

    def call(self, function: DropoutFunction, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Run a function that drops, as a site of its own or as part of the module that calls it."""
        p, training, inplace = function.reads(args, kwargs)
        within = self._sites.dropping
        if within is not None and within.visit is not None:
            if within.visit.function is None:
                within.visit.function, within.visit.inplace = function.name, inplace
                within.visit.p = within.visit.p if p is None else p
            return func(*args, **kwargs)
        self._sites.enter_function(function, p, training, inplace, next(tensors([*args, *kwargs.values()]), None))
        scope = None
        try:
            output = func(*args, **kwargs)
        finally:
            scope = self._sites.leave()
        made = next(tensors(output), None)
        if made is not None and scope is not None and not function.attention:
            self._passed(scope, made)
        return output

    def read(self, args: Sequence[Any]) -> None:
        """Values leave torch."""
        for one in tensors(args):
            self._flow.use(one, "Python")

    def _passed(self, scope: Scope, output: Tensor) -> None:
        visit, site = scope.visit, scope.site
        if visit is not None and site is not None and scope.input is not None and not visit.drew:
            self._flow.passed(visit, site, scope.input, output)

    def about_to_run(self, operator: Operator, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Let nothing be written that has not been copied."""
        if operator.written:
            self._state.about_to_write(operator, args, kwargs)

    def ran(self, ran: Ran) -> None:
        """Take note of an operator that has run."""
        if self.phase is not Phase.EVAL:
            self.seconds += ran.seconds
        if self.phase is Phase.BACKWARD and not self._sites.inside:
            # A gradient. What is recomputed runs inside of modules and functions.
            self._draws.spend(ran)
        else:
            self._draws.see(ran)


class _Functions(TorchFunctionMode):
    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder, self._known = recorder, dropout_functions()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        try:
            function = self._known.get(func)
            reads = function is None and func in _READERS
        except TypeError:  # some callables have no hash
            function, reads = None, False
        if reads:
            self._recorder.read(args)
        return func(*args, **kwargs) if function is None else self._recorder.call(function, func, args, kwargs)


class _Operators(TorchDispatchMode):
    supports_higher_order_operators = True

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder
        self._synchronize = torch.cuda.synchronize if torch.cuda.is_initialized() else _nothing

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not is_overload(func):
            # Control flow: its branches run unseen.
            self._recorder.branched = True
            return func(*args, **kwargs)
        operator = describe(func)
        self._recorder.about_to_run(operator, args, kwargs)
        self._synchronize()
        begin = perf_counter()
        output = func(*args, **kwargs)
        self._synchronize()
        seconds = perf_counter() - begin
        with no_torch_function():
            self._recorder.ran(Ran.of(func, operator, args, kwargs, output, seconds))
        return output


def _nothing() -> None:
    pass
