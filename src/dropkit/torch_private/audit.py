"""The audit: the dispatch mode that watches operators, the autograd engine, and what modules register."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import nn

from dropkit.torch_private.lookup import AUDIT, attribute, find, find_base

if TYPE_CHECKING:
    from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode
else:
    TorchDispatchMode = find_base("torch.utils._python_dispatch:TorchDispatchMode", AUDIT)

dispatch_mode_stack: Callable[[], list[Any]] = find(
    "torch.utils._python_dispatch:_get_current_dispatch_mode_stack", AUDIT
)
run_backward: Callable[..., Any] = find("torch.autograd.graph:_engine_run_backward", AUDIT)
FUSED_ENCODER_LAYER: Any = find(
    "torch:ops.aten._transformer_encoder_layer_fwd", AUDIT, None, "no encoder layer has a fast path", costs=False
)

# Every dropout layer of torch.nn.
DROPOUTS: Any = find(
    "torch.nn.modules.dropout:_DropoutNd",
    AUDIT,
    (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout),
    "classes derived from it alone are taken for the user's own",
    costs=False,
)
# Attributes of every module that hold what is registered with it, and of every tensor that hold its hooks.
REGISTERED = frozenset({"_modules", "_parameters", "_buffers"})
TENSOR_HOOKS = ("_backward_hooks", ACCUMULATED := "_post_accumulate_grad_hooks")

module_buffers: Callable[[Any], Any] = attribute("_buffers", AUDIT)
compiled_module: Callable[[Any], Any] = attribute("_orig_mod", AUDIT)
operator_schema: Callable[[Any], Any] = attribute("_schema", AUDIT)
