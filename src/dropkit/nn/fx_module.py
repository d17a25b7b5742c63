"""The base class of dropkit's modules, which graphs of torch.fx hold as a whole."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from dropkit.torch_private import has_forward_hooks


class FxModule(torch.nn.Module):
    """A module that is recorded as one call, so that it follows `train()` and `eval()` in a graph of torch.fx.

    fx does the same with the modules of torch.nn. A module with hooks, which run while the graph is recorded, and a
    module that is itself the traced model become the calls of their functions.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if args and type(args[0]) is not Tensor and isinstance(args[0], fx.Proxy):
            tracer: Any = args[0].tracer
            if not has_forward_hooks(self) and getattr(tracer, "root", None) is not self:
                named = {name: value for name, value in kwargs.items() if value is not None}

                def record(*args: Any, **kwargs: Any) -> Any:
                    return tracer.create_proxy("call_module", tracer.path_of_module(self), args, kwargs)

                # In place of `forward`, so that a tracer that overrides this sees the call.
                return tracer.call_module(self, record, args, named)
        return super().__call__(*args, **kwargs)
