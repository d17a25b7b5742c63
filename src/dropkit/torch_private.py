"""The private names of torch that dropkit uses: each is looked up here, and no other file reaches one.

torch renames and adds such names from release to release. Where one is missing, what is here does the same more slowly
or by a public name, and warns once if anybody can notice; where nothing can, the feature that needs the name raises
`UnsupportedTorchError`, and everything else works.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch._ops import OpOverload as OpOverload
    from torch._subclasses.fake_tensor import FakeTensor as FakeTensor
    from torch._subclasses.functional_tensor import FunctionalTensor as FunctionalTensor
    from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode

# The releases of torch that the test suite was run on.
TESTED = "2.10 to 2.14"

DROPOUT = "dropout in eager mode"
OPERATORS = "dropout under torch.compile, torch.export, torch.func and forward-mode differentiation"
VMAP = "dropout under torch.func.vmap"
INDUCTOR = "dropkit's own calls in the code that inductor writes"
CHECKPOINT = "dropout in regions under torch.utils.checkpoint"
EXPORT = "torch.export"
INSTALL = "dropkit.install"
MC = "Monte Carlo dropout"
AUDIT = "dropkit.audit"
AUDIT_AND_MC = f"{AUDIT} and {MC}"
NESTED = "dropout of nested tensors"
FX = "dropkit's modules under torch.fx"


class UnsupportedTorchError(RuntimeError):
    """This release of torch lacks a private name that a feature of dropkit cannot do without."""


class SlowTorchWarning(UserWarning):
    """This release of torch lacks a private name, and dropkit does without it at a cost."""


@dataclass(frozen=True, slots=True)
class Use:
    """What a private name of torch is for.

    Attributes:
        feature: what uses it.
        found: whether this release of torch has it.
        otherwise: what happens without it; None if the feature is refused.
    """

    feature: str
    found: bool
    otherwise: str | None


# Every name that was looked up, as `module:attribute`.
NAMES: dict[str, Use] = {}
# And every attribute that is read of objects.
ATTRIBUTES: dict[str, Callable[[Any], Any]] = {}


def require(feature: str) -> None:
    """Refuse a feature that cannot work on this torch, before it changes anything.

    Raises:
        UnsupportedTorchError: a name is missing that the feature needs.
    """
    for name, use in NAMES.items():
        if feature in use.feature and not use.found and use.otherwise is None:
            raise UnsupportedTorchError(_refusal(name, feature))


def missing() -> list[str]:
    """What this torch lacks and what follows, a sentence each."""
    return [
        f"torch {torch.__version__} has no {_plain(name)}: {use.otherwise or f'{use.feature} is refused'}."
        for name, use in NAMES.items()
        if not use.found
    ]


def _plain(name: str) -> str:
    return name.replace(":", ".")


def _refusal(name: str, feature: str) -> str:
    return f"{feature} must have a torch with {_plain(name)} ({TESTED} were tested), got torch {torch.__version__}"


class _Refusing:
    """In the place of a name that this torch lacks: any use of it raises."""

    def __init__(self, name: str, feature: str) -> None:
        vars(self)["refusal"] = _refusal(name, feature)

    def __call__(self, *_: Any, **__: Any) -> NoReturn:
        raise UnsupportedTorchError(vars(self)["refusal"])

    def __getattr__(self, name: str) -> NoReturn:
        raise UnsupportedTorchError(vars(self)["refusal"])


def _find(name: str, feature: str, substitute: Any = None, otherwise: str | None = None, costs: bool = True) -> Any:
    """What has this name in torch.

    Args:
        name: `module:attribute`.
        feature: what needs it.
        substitute: returned where torch lacks the name, if `otherwise` is given.
        otherwise: what that leads to, a clause; if None, the feature is refused.
        costs: whether that is worth a warning.
    """
    try:
        found = resolve_name(name)
    except (ImportError, AttributeError):
        NAMES[name] = Use(feature, False, otherwise)
    else:
        NAMES[name] = Use(feature, True, otherwise)
        return found
    if otherwise is None:
        return _Refusing(name, feature)
    if costs:
        _warn(f"torch {torch.__version__} has no {_plain(name)}: {otherwise} ({TESTED} were tested)")
    return substitute


def _find_base(name: str, feature: str) -> Any:
    """As `_find`, for a class that dropkit derives from."""
    found = _find(name, feature)
    if not isinstance(found, _Refusing):
        return found
    return type(name.rpartition(".")[2], (), {"__init__": found.__call__, "apply": found.__call__})


def _attribute(name: str, feature: str) -> Callable[[Any], Any]:
    """A getter of an attribute that objects of torch have and their classes do not."""

    def get(holder: Any) -> Any:
        try:
            return getattr(holder, name)
        except AttributeError:
            raise UnsupportedTorchError(_refusal(f"{type(holder).__name__}:{name}", feature)) from None

    ATTRIBUTES[name] = get
    return get


@cache
def _warn(text: str) -> None:
    warnings.warn(text, SlowTorchWarning, stacklevel=4)


# Eager mode: what may stand between a call and the memory of a tensor. Where that cannot be known, it is taken for
# granted, and the call goes by operators, which everything sees.


def _always(_: object) -> bool:
    return True


def _nothing(_: object) -> None:
    return None


def _is_tracing_by_jit() -> object:
    jit: Any = torch.jit
    return jit.is_tracing() or None


_BY_OPERATORS = "every call goes by way of torch's dispatcher, which takes some 20 us"

count_dispatch_modes: Callable[[], int] = _find("torch._C:_len_torch_dispatch_stack", DROPOUT, lambda: 1, _BY_OPERATORS)
_top_transform: Any = _find(
    "torch._C:_functorch.peek_interpreter_stack", DROPOUT, None, "the dispatcher is asked for transforms", costs=False
)
functorch_is_active: Callable[[], bool] = _find(
    "torch._C:_are_functorch_transforms_active",
    DROPOUT,
    lambda: _top_transform is None or _top_transform() is not None,
    "the stack of transforms is asked",
    costs=False,
)
# None unless a transform of torch.func runs, also where it is excluded from dispatch.
functorch_interpreter: Callable[[], object] = _top_transform or (lambda: functorch_is_active() or None)
is_legacy_batched: Callable[[Tensor], bool] = _find(
    "torch._C:_functorch.is_legacy_batchedtensor", DROPOUT, _always, _BY_OPERATORS
)
is_zero_tensor: Callable[[Tensor], bool] = _find("torch:Tensor._is_zerotensor", DROPOUT, _always, _BY_OPERATORS)
# None unless torch.jit.trace runs.
tracing_state: Callable[[], object] = _find(
    "torch._C:_get_tracing_state", DROPOUT, _is_tracing_by_jit, "torch.jit is asked", costs=False
)

_forward_ad: Any = torch.autograd.forward_ad
_LEVEL_UNKNOWN = _find(
    "torch.autograd.forward_ad:_current_level", DROPOUT, None, "every call is prepared for forward mode"
) is None  # fmt: skip


def in_forward_mode() -> bool:
    """Whether a level of forward-mode differentiation is open."""
    return _LEVEL_UNKNOWN or _forward_ad._current_level >= 0


_creation_meta: Any = _find(
    "torch._C:_autograd._get_creation_meta", DROPOUT, None, "autograd is asked by multiplying by 1", costs=False
)
_default_creation: Any = _find(
    "torch._C:_autograd.CreationMeta.DEFAULT", DROPOUT, None, "autograd is asked by multiplying by 1", costs=False
)
_base: Any = _find("torch:Tensor._base", DROPOUT, None, "autograd is asked by multiplying by 1", costs=False)


def may_be_written(input: Tensor) -> bool:
    """Whether autograd lets a tensor that requires grad be written in place; false also where it cannot be told."""
    if input.is_leaf or _base is None:
        return False
    base = _base.__get__(input)
    if base is None:
        return True
    return not base.is_leaf and _creation_meta is not None and _creation_meta(input) == _default_creation


# Operators, for whatever wants to see them.

below_autograd: Callable[[], AbstractContextManager[object]] = _find("torch._C:_AutoDispatchBelowAutograd", OPERATORS)
forward_mode_set_to: Callable[[bool], AbstractContextManager[object]] = _find(
    "torch.autograd.forward_ad:_set_fwd_grad_enabled", f"{OPERATORS} and {INSTALL}"
)
SingleLevelFunction: Any = _find_base("torch.autograd.function:_SingleLevelFunction", OPERATORS)
single_level_functions: Callable[[], AbstractContextManager[object]] = _find(
    "torch._functorch.utils:enable_single_level_autograd_function", OPERATORS
)
_memory_budget: Any = _find(
    "torch.fx.traceback:_get_memory_budget_annotation",
    OPERATORS,
    _nothing,
    "a region has no memory budget of its own, as in all of torch before 2.13",
    costs=False,
)
_find(
    "torch._functorch.config:activation_memory_budget",
    OPERATORS,
    None,
    "drawn keys are saved for backward under any memory budget",
)
_functorch_config: Any = sys.modules.get("torch._functorch.config")


def memory_budget(node: torch.fx.Node) -> float:
    """The fraction of activations that a compiled function may keep where `node` is."""
    budget = _memory_budget(node)
    return getattr(_functorch_config, "activation_memory_budget", 1.0) if budget is None else budget


vmap_level: Callable[[], Any] = _find("torch._functorch.pyfunctorch:retrieve_current_functorch_interpreter", VMAP)
as_batched: Callable[[Tensor, int, int], Tensor] = _find("torch._C:_functorch._add_batch_dim", VMAP)
_without_keys: Any = _find("torch._C:_ExcludeDispatchKeyGuard", VMAP)
_keys: Any = _find("torch._C:DispatchKeySet", VMAP)
_VMAP_MODE: Any = _find("torch._C:DispatchKey.FuncTorchVmapMode", VMAP)


def below_vmap() -> AbstractContextManager[object]:
    """Where an operator of vmap's random numbers may call itself for all slices."""
    require(VMAP)
    return _without_keys(_keys(_VMAP_MODE))


# Compilers, which are imported when they are first used.


def dynamo_is_loaded() -> bool:
    """Whether anything can have been compiled."""
    return "torch._dynamo" in sys.modules


def inductor_is_loaded() -> bool:
    """Whether there is a table of lowerings to write to."""
    return "torch._inductor.lowering" in sys.modules


@dataclass(frozen=True, slots=True)
class Inductor:
    """The parts of inductor that write a call of ours into its code; `V` holds the graph at hand."""

    ExternKernelOut: Any
    FixedLayout: Any
    TensorBox: Any
    convert_shape: Any
    fallback_handler: Any
    register_lowering: Any
    V: Any


@cache
def inductor() -> Inductor | None:
    """Inductor's parts; None where one is missing, so that inductor calls dropkit's operators as any others."""
    otherwise = "compiled code calls dropkit's operators by way of torch's dispatcher"
    names = (
        "torch._inductor.ir:ExternKernelOut", "torch._inductor.ir:FixedLayout", "torch._inductor.ir:TensorBox",
        "torch._inductor.ir:convert_shape_to_inductor", "torch._inductor.lowering:fallback_handler",
        "torch._inductor.lowering:register_lowering", "torch._inductor.virtualized:V",
    )  # fmt: skip
    found = [_find(name, INDUCTOR, None, otherwise) for name in names]
    return None if None in found else Inductor(*found)


# Activation checkpointing in eager mode.

_GENERATORS_ALONE = "a checkpointed region has one mask only where torch restores its generators"
saved_tensors_hooks: Callable[[bool], Any] = _find(
    "torch._C:_autograd._top_saved_tensors_default_hooks", CHECKPOINT, _nothing, _GENERATORS_ALONE, costs=False
)
# The number of the backward pass that runs in this thread, -1 if none does.
backward_pass: Callable[[], int] = _find(
    "torch._C:_current_graph_task_id", CHECKPOINT, lambda: -1, _GENERATORS_ALONE, costs=False
)
# False in the forward of an autograd Function.
forward_mode_is_enabled: Callable[[], bool] = _find(
    "torch._C:_is_fwd_grad_enabled", CHECKPOINT, lambda: True, _GENERATORS_ALONE, costs=False
)
checkpoint_hook: Any = _find(
    "torch.utils.checkpoint:_checkpoint_hook", CHECKPOINT, None, _GENERATORS_ALONE, costs=False
)
# What `checkpoint` calls since torch 2.14; before, it did all of it itself.
checkpoint_function: Any = _find(
    "torch.utils.checkpoint:_checkpoint_impl",
    CHECKPOINT,
    None,
    "the public function has its code, as before 2.14",
    costs=False,
)
without_dispatch_modes: Callable[[], AbstractContextManager[object]] = _find(
    "torch._C:_DisableTorchDispatch", CHECKPOINT, nullcontext, "modes see the keys of checkpointed regions", costs=False
)

# Modes of compilers.

_get_mode: Any = _find("torch._C:_get_dispatch_mode", OPERATORS, _nothing, "no mode is known", costs=False)
_FAKE: Any = _find("torch._C:_TorchDispatchModeKey.FAKE", OPERATORS, None, "no mode is known", costs=False)
_FUNCTIONAL: Any = _find("torch._C:_TorchDispatchModeKey.FUNCTIONAL", OPERATORS, None, "no mode is known", costs=False)
_PROXY: Any = _find("torch._C:_TorchDispatchModeKey.PROXY", OPERATORS, None, "no mode is known", costs=False)


def fake_mode() -> Any:
    """The FakeTensorMode that is on; None if none is."""
    return None if _FAKE is None else _get_mode(_FAKE)


def is_traced() -> bool:
    """Whether a mode is on that a compiler looks on with."""
    return any(kind is not None and _get_mode(kind) is not None for kind in (_FAKE, _FUNCTIONAL, _PROXY))


# Export.

_HAS_FLAG = (
    _find("torch.compiler:_is_exporting_flag", EXPORT, None, "torch.compiler.is_exporting is asked", costs=False)
    is not None
)


def is_exporting() -> bool:
    """Whether torch.export runs. torch.compile makes `torch.compiler.is_exporting` true on torch 2.10 and 2.11."""
    compiler: Any = torch.compiler
    return compiler._is_exporting_flag if _HAS_FLAG else compiler.is_exporting()


_decomposed = "programs that are decomposed under dropkit.install hold dropkit's operators"
_infra_mode: Any = _find("torch.utils._python_dispatch:_detect_infra_mode", EXPORT, None, _decomposed, costs=False)


def is_functionalized_for_export() -> bool:
    """Whether a program for other tools is decomposed, or compiled ahead of time."""
    mode: Any = None if _infra_mode is None or _FUNCTIONAL is None else _infra_mode(_FUNCTIONAL)
    return mode is not None and getattr(mode, "export", False)


# install.

if not TYPE_CHECKING:
    FakeTensor = _find_base("torch._subclasses.fake_tensor:FakeTensor", INSTALL)
    FunctionalTensor = _find_base("torch._subclasses.functional_tensor:FunctionalTensor", INSTALL)
    OpOverload = _find_base("torch._ops:OpOverload", AUDIT)
_no_dispatch: Any = _find("torch._C:_disabled_torch_dispatch_impl", INSTALL)
_is_included: Any = _find("torch._C:_dispatch_tls_is_dispatch_key_included", INSTALL)
_PYTHON_DISPATCHER: Any = _find("torch._C:DispatchKey.PythonDispatcher", INSTALL)
_COMPOSITE: Any = _find("torch._C:DispatchKey.CompositeImplicitAutograd", INSTALL)
_call_kernel = _attribute("_op_dk", INSTALL)
_destroy: Any = _find("torch.library:Library._destroy", INSTALL)
_DISPATCH_KEY: Any = _find("torch._C:DispatchKey", INSTALL)


def sees_operators(kind: type[Any]) -> bool:
    """Whether a class of tensors takes operators apart by itself."""
    return getattr(kind, "__torch_dispatch__", None) is not _no_dispatch


def run_composite(operator: OpOverload, *arguments: Any) -> Any:
    """Run the kernel that torch made of other operators: in C++, or its Python stand-in while a compiler traces."""
    if _is_included(_PYTHON_DISPATCHER):
        return operator.decompose(*arguments)
    return _call_kernel(operator)(_COMPOSITE, *arguments)


def destroy(library: torch.library.Library) -> None:
    """Take back every kernel that was registered by `library`."""
    _destroy(library)


def forget_dispatch(operator: OpOverload) -> None:
    """Look the kernels of `operator` up anew; nothing where this torch remembers none."""
    getattr(operator, "_dispatch_cache", {}).clear()


def has_kernel(operator: OpOverload, key: str) -> bool:
    """Whether torch has a kernel of `operator` for the dispatch key of this name."""
    return operator.has_kernel_for_dispatch_key(getattr(_DISPATCH_KEY, key))


# What walks the layers of recurrent networks that compilers take apart; None where torch does so otherwise.
recurrent_walk: Callable[..., Any] | None = _find(
    "torch._decomp.decompositions:_rnn_helper",
    INSTALL,
    None,
    "compiled recurrent networks have the dropout that torch gives them",
    costs=False,
)
_decompositions: Any = sys.modules.get("torch._decomp.decompositions")


def set_recurrent_walk(walk: Callable[..., Any]) -> None:
    """Let `walk` do what `recurrent_walk` does."""
    _decompositions._rnn_helper = walk


def recurrent_layer(name: str) -> Callable[..., Any]:
    """A function of torch's that does one layer for `recurrent_walk`."""
    return getattr(_decompositions, name)


# Monte Carlo dropout.

no_torch_function: Callable[[], AbstractContextManager[object]] = _find("torch._C:DisableTorchFunction", AUDIT_AND_MC)
no_functorch: Callable[[], AbstractContextManager[object]] = _find("torch._C:_DisableFuncTorch", MC)
# From then on whoever asks for the memory of this tensor gets an error.
make_unreadable: Callable[[Tensor], None] = _find("torch._C:_set_throw_on_mutable_data_ptr", MC)
wrapper_subclass: Callable[..., Any] = _find("torch:Tensor._make_wrapper_subclass", MC)
tree_flatten: Callable[[Any], tuple[list[Any], Any]] = _find("torch.utils._pytree:tree_flatten", MC)
tree_unflatten: Callable[[Any, Any], Any] = _find("torch.utils._pytree:tree_unflatten", MC)
pad_packed: Callable[..., tuple[Tensor, Tensor]] = _find("torch:_VF._pad_packed_sequence", MC)
pack_padded: Callable[..., tuple[Tensor, Tensor]] = _find("torch:_VF._pack_padded_sequence", MC)
_version: Any = _find("torch:Tensor._version", MC)

# Functions that draw random numbers and have private names alone; what torch lacks nobody calls.
DRAWING: tuple[Callable[..., Any], ...] = tuple(
    function
    for name in ("_standard_gamma", "_sample_dirichlet")
    if (function := _find(f"torch:_VF.{name}", MC, None, "there is nothing to see", costs=False)) is not None
)


def write_count(tensor: Tensor) -> int:
    """How often `tensor` has been written; 0 for tensors of inference mode, whose writes are not counted."""
    return 0 if tensor.is_inference() else _version.__get__(tensor)


# The audit.

if not TYPE_CHECKING:
    TorchDispatchMode = _find_base("torch.utils._python_dispatch:TorchDispatchMode", AUDIT)
dispatch_mode_stack: Callable[[], list[Any]] = _find(
    "torch.utils._python_dispatch:_get_current_dispatch_mode_stack", AUDIT
)
run_backward: Callable[..., Any] = _find("torch.autograd.graph:_engine_run_backward", AUDIT)
FUSED_ENCODER_LAYER: Any = _find(
    "torch:ops.aten._transformer_encoder_layer_fwd", AUDIT, None, "no encoder layer has a fast path", costs=False
)

_address: Any = _find("torch:UntypedStorage._cdata", AUDIT_AND_MC)


def storage_identity(storage: torch.UntypedStorage) -> int:
    """What tells this memory from all other memory that exists now."""
    return _address.__get__(storage)


# What torch's dropout modules inherit from. A module that torch lacks inherits from it too, so that one `isinstance`
# finds every dropout.
if TYPE_CHECKING:
    from torch.nn.modules.dropout import _DropoutNd

    TorchDropout = _DropoutNd
else:
    TorchDropout = nn.Dropout.__bases__[0]

# Every dropout layer of torch.nn.
DROPOUTS: Any = _find(
    "torch.nn.modules.dropout:_DropoutNd",
    AUDIT,
    (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout),
    "classes derived from it alone are taken for the user's own",
    costs=False,
)
# Attributes of every module that hold what is registered with it, and of every tensor that hold its hooks.
REGISTERED = frozenset({"_modules", "_parameters", "_buffers"})
TENSOR_HOOKS = ("_backward_hooks", ACCUMULATED := "_post_accumulate_grad_hooks")

module_buffers = _attribute("_buffers", AUDIT)
compiled_module = _attribute("_orig_mod", AUDIT)
operator_schema = _attribute("_schema", AUDIT)


# Layers.

_forward_hooks = _attribute("_forward_hooks", FX)
_forward_pre_hooks = _attribute("_forward_pre_hooks", FX)


def has_forward_hooks(module: nn.Module) -> bool:
    """Whether a call of `module` runs hooks of its own."""
    return bool(_forward_hooks(module) or _forward_pre_hooks(module))


def forward_hooks(module: nn.Module) -> list[Any]:
    """What runs before and after a call of `module`."""
    return [*_forward_pre_hooks(module).values(), *_forward_hooks(module).values()]


ragged_dim = _attribute("_ragged_idx", NESTED)
min_length = _attribute("_maybe_min_seqlen", NESTED)
max_length = _attribute("_maybe_max_seqlen", NESTED)
nested_sizes: Callable[[Tensor], Tensor] = _find("torch:Tensor._nested_tensor_size", NESTED)
