"""Watching a model run: its modules by hooks, the functions it calls and the operators below them by modes of torch.

Hooks and the function mode say who drops and what was asked for; the dispatch mode sees every operator, from Python,
C++ and TorchScript alike, and so whatever draws, with the mask that comes of it.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode_stack

from dropkit.auditor import masks
from dropkit.auditor.functions import Function, known
from dropkit.auditor.ledger import Chance, Ledger, Made, Mask
from dropkit.auditor.operators import MASKS, Operator, describe, is_overload, storage, tensors
from dropkit.auditor.places import here
from dropkit.auditor.tree import Held, drops, holds_rate, rate_of
from dropkit.auditor.untouched import Untouched
from dropkit.facts.trace import Draw, Form, Origin, Phase, Place, Site, Visit

# What no operator sees.
_READERS: frozenset[Any] = frozenset({Tensor.tolist, Tensor.numpy, Tensor.__array__})
_OURS = frozenset({"drop_v1", "drop_at_v1"})


@dataclass(slots=True)
class _Scope:
    """A module or a function that is running; `visit` if it is one that drops."""

    name: str
    kind: str
    visit: Visit | None = None
    site: Site | None = None
    input: Tensor | None = None


class Recorder:
    """Everything seen of a model's dropout, in one or several runs."""

    def __init__(self, held: Mapping[int, Held], state: Untouched) -> None:
        self.sites: list[Site] = []
        self.draws: list[Draw] = []
        self.seconds = 0.0
        self.phase = Phase.TRAIN
        self.entered: set[int] = set()
        self._held = held
        self._state = state
        self._ledger = Ledger()
        self._scopes: list[_Scope] = []
        self._by_key: dict[Any, Site] = {}
        self._operators: _Operators | None = None
        self._chances: list[Chance] = []
        self._results: list[tuple[Visit, StorageWeakRef]] = []
        self._born: list[tuple[Site, weakref.ref[nn.Module]]] = []
        # The last input that was dropped from, for batch normalization to compare with.
        self._last: tuple[Visit, Tensor] | None = None
        self._synchronize = torch.cuda.synchronize if torch.cuda.is_initialized() else None

    @contextmanager
    def watch(self, phase: Phase) -> Generator[None]:
        """See what runs in this thread, and in those that run its backward pass, for the length of a `with` block."""
        self.phase = phase
        self._scopes.clear()
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
            try:
                yield
            finally:
                self._last = None
        self._finish()

    def begin(self, inputs: Any) -> None:
        """These tensors are the caller's."""
        for tensor in inputs:
            self._ledger.note(tensor, Made(Origin()))

    def end(self, outputs: Any) -> None:
        """These tensors are what the model returned; what is still held of the masks is held for backward."""
        for tensor in outputs:
            self._use(tensor, "output")
        for visit, held in self._ledger.kept():
            visit.kept_bytes += held
        for visit, memory in self._results:
            # Somebody has it, though no operator saw it.
            visit.used = visit.used or not memory.expired()
        self._results.clear()

    # Modules

    def _if_watched(self, hook: Callable[..., None]) -> Callable[..., None]:
        """Hooks are the whole process's; modes are a thread's, and of the threads that run its backward pass."""

        def guarded(module: nn.Module, *rest: Any) -> None:
            if self._operators in _get_current_dispatch_mode_stack():
                hook(module, *rest)

        return guarded

    def _enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self.entered.add(id(module))
        held = self._held.get(id(module))
        owner = self._scopes[-1].name if self._scopes else ""
        kind = type(module).__name__
        name = held.name if held is not None else f"{owner}.{kind}" if owner else kind
        scope = _Scope(name, kind, input=next(tensors(args), None))
        if self._open() is None and (drops(module) or holds_rate(module)):
            scope.site = self._module_site(module, held, name, owner)
            scope.visit = self._visit(scope.site, rate_of(module), module.training, scope.input)
            scope.visit.inplace = bool(getattr(module, "inplace", False))
        self._scopes.append(scope)

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        scope = self._scopes.pop() if self._scopes else None
        made = next(tensors(output), None)
        if scope is None or made is None:
            return
        if scope.visit is not None and not holds_rate(module):
            self._passed(scope, made)
        elif isinstance(module, nn.RNNBase):
            self._ledger.note(made, Made(Origin(scope.kind, scope.kind), made.stride(-1)))

    def _module_site(self, module: nn.Module, held: Held | None, name: str, owner: str) -> Site:
        place = here()
        key = id(module) if held is not None else (owner, type(module), place)
        site, kind = self._by_key.get(key), type(module).__name__
        if site is None:
            form = Form.REGISTERED if held is not None and held.registered else Form.UNREGISTERED
            rate = held.rate if held is not None else rate_of(module)
            site = self._add(key, Site(name, kind, form, place, (*self._owners(), kind), rate))
            if isinstance(module, nn.RNNBase):
                site.layers = module.num_layers
        if held is None:
            self._born.append((site, weakref.ref(module)))
        return site

    def _finish(self) -> None:
        """A module that did not outlive the run was made in it."""
        for site, module in self._born:
            if module() is None:
                site.form = Form.PER_CALL

    # Functions

    def call(self, function: Function, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Run a function that drops, as a site of its own or as part of the module that calls it."""
        p, training, inplace = function.reads(args, kwargs)
        scope = self._open()
        if scope is not None and scope.visit is not None:
            if scope.visit.function is None:
                scope.visit.function, scope.visit.inplace = function.name, inplace
                if p is not None:
                    scope.visit.p = p
            return func(*args, **kwargs)
        input = next(tensors([*args, *kwargs.values()]), None)
        owner = self._scopes[-1].name if self._scopes else ""
        place = here()
        key = owner, function.name, place
        site = self._by_key.get(key)
        if site is None and self.phase is Phase.BACKWARD:
            # A part of a forward that is recomputed knows no module around it.
            site = next((one for one in self.sites if (one.kind, one.place) == (function.name, place)), None)
        if site is None:
            site = self._add(key, Site(owner, function.name, function.form, place, self._owners()))
        visit = self._visit(site, p, training, input)
        visit.function, visit.inplace = function.name, inplace
        if site.p is None or (not site.p and p):
            site.p = p
        self._scopes.append(_Scope(owner, function.name, visit, site, input))
        try:
            output = func(*args, **kwargs)
        finally:
            scope = self._scopes.pop()
        made = next(tensors(output), None)
        if made is not None and function.form is Form.FUNCTION:
            self._passed(scope, made)
        return output

    def read(self, args: Sequence[Any]) -> None:
        """Values leave torch."""
        for one in tensors(args):
            self._use(one, "Python")

    def _passed(self, scope: _Scope, output: Tensor) -> None:
        """A visit that dropped nothing: what went in came out."""
        if scope.visit is None or scope.site is None or scope.visit.drew or scope.input is None:
            return
        made = self._ledger.made(scope.input)
        if made is not None:
            scope.visit.origin = made.origin
            if made.dropped is not None:
                self._mark(made.dropped[0], scope.site.kind)
            self._ledger.note(output, Made(made.origin, made.feature_stride, (scope.visit, scope.site)))

    # Operators

    def about_to_run(self, operator: Operator, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        if operator.written:
            self._state.about_to_write(operator, args, kwargs)

    def synchronize(self) -> None:
        if self._synchronize is not None:
            self._synchronize()

    def ran(
        self,
        overload: Any,
        operator: Operator,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        output: Any,
        seconds: float,
    ) -> None:
        """Take note of an operator that has run."""
        inputs = list(tensors([*args, *kwargs.values()]))
        seen = [mask for one in inputs if (mask := self._ledger.mask(one)) is not None]
        if self.phase is not Phase.EVAL:
            self.seconds += seconds
        if self.phase is Phase.BACKWARD and not self._scopes:
            # A gradient. What is recomputed runs inside of modules and functions.
            self._spend(seen, seconds)
            return
        if operator.name in _OURS:
            self._ours(overload, args, output, seconds)
        elif operator.draws or operator.drops_at(args, kwargs) > 0:
            self._drew(operator, args, kwargs, inputs, output, seconds)
        elif seen:
            self._spend(seen, seconds)
            self._with_mask(operator, args, inputs, seen, output)
        else:
            self._plain(operator, args, inputs, output)

    def _spend(self, seen: Sequence[Mask], seconds: float) -> None:
        if self.phase is Phase.EVAL:
            return
        for chance in {id(mask.chance): mask.chance for mask in seen}.values():
            if chance.visit is not None:
                chance.visit.seconds += seconds
            else:
                chance.seconds += seconds
            return

    def _drew(
        self,
        operator: Operator,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        inputs: Sequence[Tensor],
        output: Any,
        seconds: float,
    ) -> None:
        made = list(tensors(output))
        scope = self._open()
        fused = operator.drops_at(args, kwargs)
        if operator.name == "native_dropout" and args[2] is False:
            return
        if fused > 0 or operator.name == "native_dropout":
            self._fused(operator, fused or float(args[1]), inputs, made, seconds)
            return
        if not made:
            return
        if not operator.fresh and operator.name not in ("bernoulli", "uniform"):
            self._plain(operator, args, inputs, output)
        mask = Mask(Chance(operator.name, here()), discrete="bernoulli" in operator.name)
        self._chances.append(mask.chance)
        if operator.name not in MASKS:
            return
        self._ledger.note(made[0], None)
        if scope is not None and scope.visit is not None:
            mask.chance.visit, mask.chance.site = scope.visit, scope.site
            # A mask, or a key of ours: both decide what is dropped. Noise may come to nothing.
            scope.visit.drew = scope.visit.drew or mask.discrete or operator.name == "draw_v1"
            scope.visit.operator = operator.name
            if mask.discrete and self.phase is Phase.BACKWARD and scope.visit.keep is None:
                # A recomputation may stop before the mask is used.
                masks.recognize(scope.visit, made[0], 0.0)
        self._ledger.note_mask(made[0], mask)
        self._spend([mask], seconds)

    def _fused(
        self, operator: Operator, p: float, inputs: Sequence[Tensor], made: Sequence[Tensor], seconds: float
    ) -> None:
        """A kernel that draws and drops at once. Some return the mask."""
        visit, site = self._current(operator.name, Form.ATTENTION, p)
        visit.drew, visit.operator = True, operator.name
        visit.shape = visit.shape or masks.shape_of(inputs[0])
        if operator.name == "native_dropout":
            masks.measure(visit, made[1], inputs[0])
            self._ledger.note_mask(made[1], Mask(Chance(operator.name, None, visit, site, counted=True)))
            self._applied(visit, site, inputs[0], made[0])
        visit.seconds += seconds if self.phase is not Phase.EVAL else 0.0

    def _ours(self, overload: Any, args: Sequence[Any], output: Tensor, seconds: float) -> None:
        """dropkit's operator: one key instead of a mask. The coins are those that the kernel gives to ones."""
        input, key, *_ = args
        drawn = self._ledger.mask(key)
        visit, site = (drawn.chance.visit, drawn.chance.site) if drawn is not None else (None, None)
        if visit is None or site is None:
            visit, site = self._current("dropout", Form.MASK, None)
        if not visit.drew:
            visit.drew, visit.keyed = True, True
        visit.operator = "drop_v1"
        ones = torch.ones_like(input.detach())
        rest = args[1:]
        kept = overload(ones, *rest) != overload(torch.zeros_like(ones), *rest)
        visit.shape = visit.shape or masks.shape_of(input)
        masks.measure(visit, masks.shared(kept, args[-2]), input)
        self._ledger.note_mask(key, Mask(Chance("drop_v1", None, visit, site, counted=True)))
        self._applied(visit, site, input, output)
        visit.seconds += seconds if self.phase is not Phase.EVAL else 0.0

    def _with_mask(
        self, operator: Operator, args: Sequence[Any], inputs: Sequence[Tensor], seen: Sequence[Mask], output: Any
    ) -> None:
        """Something computed with random numbers: a mask in the making, a mask at work, or noise."""
        scope, mask = self._open(), seen[0]
        if scope is not None:
            # What this dropout drew itself; its input may be random, too.
            mask = next((one for one in seen if one.chance.visit is scope.visit), mask)
        own = mask.chance if scope is not None else None
        others = [one for one in inputs if one.numel() > 1 and not self._is_chance(one, own)]
        made = list(tensors(output))
        if not others or operator.compares:
            discrete = mask.discrete or operator.compares
            changed = replace(mask, discrete=discrete, independent=mask.independent and not operator.pools)
            for one in made:
                self._ledger.note_mask(one, changed)
                self._ledger.note(one, None)
            return
        for one in made:
            self._ledger.forget_mask(one)
        if not made:
            return
        input = max(others, key=Tensor.numel)
        known = self._ledger.made(input)
        if known is not None and known.dropped is not None and known.dropped[0] is mask.chance.visit:
            self._ledger.note(made[0], known)
        elif not (operator.applies and mask.discrete and self._apply(operator, args, mask, inputs, others, made[0])):
            self._plain(operator, args, inputs, output)

    def _is_chance(self, tensor: Tensor, chance: Chance | None) -> bool:
        """Whether a tensor is random numbers: those of `chance`, or any if that is None."""
        mask = self._ledger.mask(tensor)
        return mask is not None and (chance is None or mask.chance is chance)

    def _apply(
        self,
        operator: Operator,
        args: Sequence[Any],
        mask: Mask,
        inputs: Sequence[Tensor],
        others: Sequence[Tensor],
        output: Tensor,
    ) -> bool:
        """Take a mask at its work; false if it chooses between two things and drops neither."""
        keep, chance = next(one for one in inputs if self._is_chance(one, mask.chance)), mask.chance
        input = max(others, key=Tensor.numel)
        if operator.name in ("masked_fill", "index_put"):
            if not _is_zero(args[2]):
                return False
            keep = keep == 0
        elif operator.name == "where":
            zero = [_is_zero(one) for one in args[1:3]]
            if sum(zero) != 1:
                return False
            input = args[2] if zero[0] else args[1]
            keep = keep == 0 if zero[0] else keep
        if not isinstance(input, Tensor) or not input.is_floating_point():
            return False
        if chance.visit is None or chance.site is None:
            chance.visit, chance.site = self._masked(chance.place)
            chance.visit.operator, chance.visit.seconds = chance.operator, chance.seconds
        chance.visit.drew = True
        if not chance.counted:
            chance.counted = True
            chance.visit.independent = mask.independent
            masks.measure(chance.visit, keep, input)
        self._applied(chance.visit, chance.site, input, output)
        return True

    def _applied(self, visit: Visit, site: Site, input: Tensor, output: Tensor) -> None:
        """`output` is what `visit` left of `input`."""
        visit.dtype, visit.device = str(input.dtype).removeprefix("torch."), input.device.type
        held = "parameter" if self._state.holds(input) else ""
        made = self._ledger.made(input) or Made(Origin(held, held))
        visit.origin = made.origin
        visit.follows = made.dropped[1] if made.dropped is not None and made.dropped[0].drew else None
        dim = self._ledger.feature_dim(input)
        if dim is not None:
            dim -= input.dim() - len(visit.unit)
            visit.feature_dim = dim if dim >= 0 else None
        if made.dropped is not None:
            self._mark(made.dropped[0], site.kind)
        copied = self._ledger.copied(input, output)
        stride = copied.feature_stride if copied is not None else None
        self._ledger.note(output, Made(Origin(site.kind, made.origin.layer), stride, (visit, site)))
        if storage(output) is not None:
            self._results.append((visit, StorageWeakRef(output.untyped_storage())))
        self._last = visit, input

    def _plain(self, operator: Operator, args: Sequence[Any], inputs: Sequence[Tensor], output: Any) -> None:
        """An operator without chance: what it reads is used, what it makes is known by its name."""
        outputs = list(tensors(output))
        source = inputs[0] if inputs else None
        if source is None or not outputs:
            for one in inputs:
                self._use(one, operator.layer)
            for one in outputs:
                self._ledger.note(one, None)
            return
        new = [one for one in outputs if not any(_same(one, other) for other in inputs)]
        if operator.written:
            new = outputs
        elif not new:
            return  # a view
        if operator.copies or (operator.name in ("mul", "div", "neg") and _alone(inputs)):
            if operator.name == "copy":
                source = inputs[1] if len(inputs) > 1 else source
            for one in new:
                self._ledger.note(one, self._ledger.copied(source, one))
            return
        flowing = [one for one in inputs if not self._state.holds(one)] or list(inputs)
        label = operator.label(args, outputs[0])
        if label == "add" and len(flowing) == 1 and len(inputs) == 2:
            # A bias.
            self._ledger.note(outputs[0], self._ledger.copied(flowing[0], outputs[0]))
            return
        for one in () if operator.fresh else flowing:
            self._normalized(label, one)
            self._use(one, label)
        self._aliased(operator, flowing)
        made = self._ledger.follow(operator, args, flowing, outputs[0])
        for one in new:
            self._ledger.note(one, made)

    def _normalized(self, label: str, input: Tensor) -> None:
        made = self._ledger.made(input)
        if self._last is None or made is None or made.dropped is None or not label.startswith("BatchNorm"):
            return
        visit, before = self._last
        if visit is made.dropped[0] and before.numel() == input.numel() and before.dim() >= 2:
            visit.variance = _ratio(before.reshape(input.shape), input)

    def _aliased(self, operator: Operator, inputs: Sequence[Tensor]) -> None:
        """A sum of a tensor and what was dropped from it in place: both are the same."""
        if operator.name != "add" or len(inputs) != 2 or not _same(*inputs):
            return
        made = self._ledger.made(inputs[0])
        if made is not None and made.dropped is not None and made.dropped[0].inplace and made.dropped[0].drew:
            made.dropped[0].aliased = True

    def _use(self, tensor: Tensor, label: str) -> None:
        made = self._ledger.made(tensor)
        if made is not None and made.dropped is not None:
            self._mark(made.dropped[0], label)

    def _mark(self, visit: Visit, label: str) -> None:
        visit.used = True
        if label not in visit.before:
            visit.before.append(label)

    # Sites

    def _open(self) -> _Scope | None:
        """The outermost running thing that drops; what runs inside of it is part of it."""
        return next((scope for scope in self._scopes if scope.visit is not None), None)

    def _current(self, kind: str, form: Form, p: float | None) -> tuple[Visit, Site]:
        scope = self._open()
        if scope is not None and scope.visit is not None and scope.site is not None:
            return scope.visit, scope.site
        visit, site = self._masked(here(), kind, form)
        visit.p = p
        return visit, site

    def _masked(self, place: Place | None, kind: str = "mask", form: Form = Form.MASK) -> tuple[Visit, Site]:
        owner = self._scopes[-1].name if self._scopes else ""
        key = owner, kind, place
        site = self._by_key.get(key)
        if site is None:
            site = self._add(key, Site(owner, kind, form, place, self._owners()))
        return self._visit(site, None, None, None, place), site

    def _add(self, key: Any, site: Site) -> Site:
        self._by_key[key] = site
        self.sites.append(site)
        return site

    def _visit(
        self,
        site: Site,
        p: float | bool | None,
        training: bool | None,
        input: Tensor | None,
        place: Place | None = None,
    ) -> Visit:
        shape = masks.shape_of(input) if input is not None else ()
        visit = Visit(self.phase, place or here(), shape, p, training)
        site.visits.append(visit)
        return visit

    def _owners(self) -> tuple[str, ...]:
        return tuple(scope.kind for scope in self._scopes)

    def close(self) -> None:
        """After the last run: what was drawn and never became a mask is no dropout."""
        self.draws = [Draw(one.operator, one.place) for one in self._chances if one.visit is None]


class _Functions(TorchFunctionMode):
    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder, self._known = recorder, known()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        try:
            function = self._known.get(func)
        except TypeError:  # some callables have no hash
            function = None
        if function is None:
            if func in _READERS:
                self._recorder.read(args)
            return func(*args, **kwargs)
        return self._recorder.call(function, func, args, kwargs)


class _Operators(TorchDispatchMode):
    supports_higher_order_operators = True

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not is_overload(func):
            # Control flow: its branches run unseen.
            return func(*args, **kwargs)
        operator, recorder = describe(func), self._recorder
        recorder.about_to_run(operator, args, kwargs)
        recorder.synchronize()
        begin = perf_counter()
        output = func(*args, **kwargs)
        recorder.synchronize()
        seconds = perf_counter() - begin
        with torch._C.DisableTorchFunction():
            recorder.ran(func, operator, args, kwargs, output, seconds)
        return output


def _same(one: Tensor, other: Tensor) -> bool:
    key = storage(one)
    return key is not None and key == storage(other)


def _alone(inputs: Sequence[Tensor]) -> bool:
    """Whether a tensor meets numbers only."""
    return sum(one.dim() > 0 for one in inputs) <= 1


def _ratio(before: Tensor, after: Tensor) -> float | None:
    """The median over channels of how the variance changed."""
    dims = [dim for dim in range(before.dim()) if dim != 1]
    first, second = before.detach().float().var(dims), after.detach().float().var(dims)
    known = first > 0
    return float((second[known] / first[known]).median()) if bool(known.any()) else None


def _is_zero(value: Any) -> bool:
    return not bool(value.any()) if isinstance(value, Tensor) else value == 0
