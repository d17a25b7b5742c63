"""PrunedNetworks: leave dropped units out of matrix products, where all inputs of a batch share a mask.

A shared mask drops whole columns, which need neither be computed nor multiplied by the weights of the next layer.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

from dropkit.kernels.params import inverted
from dropkit.mc.accelerate.pruned_rules import defer
from dropkit.mc.accelerate.recording import ESCAPES, Diverged
from dropkit.mc.accelerator import Accelerator
from dropkit.mc.batch_rows import BatchRows
from dropkit.mc.batches import Batch
from dropkit.mc.masks import MaskSampler, SampledMask
from dropkit.mc.mode import Args, Kwargs
from dropkit.mc.notes import Notes, reason
from dropkit.mc.site_mode import SiteDropout
from dropkit.mc.virtual_tensors import (
    DEFERRED_FUNCTIONS,
    WORTHWHILE_ROWS,
    PrunedTensor,
    StaleInput,
    VirtualTensor,
    materialized,
    prune,
    run_function,
)
from dropkit.torch_private import functorch_is_active


class PrunedNetworks(Accelerator):
    """Returns a `PrunedTensor` from dropout, and a `DeferredLayer` from linear layers and convolutions.

    Args:
        notes: gets a note if pruning fails; it is then off for all further batches.
    """

    def __init__(self, model: nn.Module, notes: Notes, prunes: bool) -> None:
        self._model, self._notes, self._prunes = model, notes, prunes
        self._is_active = self._shares_masks = False
        # Sites where pruning saves nothing, because the next function needs the whole tensor.
        self._unpruned: set[int] = set()
        # Layers that cannot be deferred, because their input is written into before their output is needed.
        self._never_deferred: set[int] = set()
        self._layer = 0
        self._pruned: list[tuple[int, PrunedTensor]] = []
        # All virtual tensors of this pass.
        self._virtual: list[weakref.ref[VirtualTensor]] = []

    def begin_batch(self, rows: BatchRows) -> None:
        self._shares_masks = rows.group is not None
        self._unpruned, self._never_deferred = set(), set()

    def begin_pass(self, batch: Batch, is_plain: bool = False) -> Batch | None:
        self._is_active = self._prunes and self._shares_masks and not is_plain
        self._layer = 0
        self._pruned, self._virtual = [], []

    def intercept(self, func: Any, types: Any, args: Args, kwargs: Kwargs) -> Any:
        if not self._is_active:
            return NotImplemented
        if func in ESCAPES:
            # A deferred layer would not notice writes through the shared memory.
            self._materialize_all()
        output = NotImplemented
        if func in DEFERRED_FUNCTIONS:
            self._layer += 1
            if self._layer not in self._never_deferred and not (functorch_is_active() or torch.is_grad_enabled()):
                output = defer(func, args, kwargs, self._layer)
        if output is NotImplemented:
            has_virtual = any(issubclass(kind, VirtualTensor) for kind in types)
            output = run_function(func, args, kwargs) if has_virtual else func(*args, **kwargs)
        if isinstance(output, VirtualTensor):
            self._virtual.append(weakref.ref(output))
        return output

    def drop(self, input: Tensor, dropout: SiteDropout, mask: SampledMask, sampler: MaskSampler) -> Tensor:
        is_plain = dropout.make_params is inverted and not dropout.inplace
        if not self._is_active or not is_plain or mask.site in self._unpruned:
            return NotImplemented
        # Only where the inputs have a dimension of the tensor for themselves.
        dim = mask.spec.masked_dim if len(mask.spec.shape) == len(input.shape) else None
        if dim is None or input.shape.numel() < WORTHWHILE_ROWS * input.shape[dim]:
            return NotImplemented
        output = prune(input, sampler.kept_indices(mask, input.device), dim, inverted(dropout.p).scale)
        self._pruned.append((mask.site, output))
        self._virtual.append(weakref.ref(output))
        return output

    def materialize(self, tensor: Tensor) -> Tensor:
        return tensor.materialize() if isinstance(tensor, VirtualTensor) else tensor

    def end_pass(self, has_hidden_randomness: bool) -> None:
        self._unpruned.update(site for site, tensor in self._pruned if tensor.full is not None)
        self._pruned = []
        if self._materialize_all():
            seen = set[int]()
            for module in self._model.modules():
                _materialize_in(vars(module), seen)

    def failed(self, error: Exception) -> bool:
        if isinstance(error, StaleInput) and error.layer not in self._never_deferred:
            self._never_deferred.add(error.layer)
            return True
        if not self._is_active or isinstance(error, Diverged):
            return False
        self._prunes = False
        self._notes.append(f"no units were left out: {reason(error)}")
        return True

    def _materialize_all(self) -> bool:
        """Compute the values of all virtual tensors that still exist, and return whether there are any."""
        held = [tensor for ref in self._virtual if (tensor := ref()) is not None]
        for tensor in held:
            tensor.materialize()
        return bool(held)


def _materialize_in(container: dict[Any, Any] | list[Any], seen: set[int]) -> None:
    """Replace the virtual tensors in a dict or list, in place, and in the containers inside."""
    if id(container) in seen:
        return
    seen.add(id(container))
    entries: Iterable[tuple[Any, Any]] = container.items() if isinstance(container, dict) else enumerate(container)
    for key, value in list(entries):
        if isinstance(value, (dict, list)):
            _materialize_in(cast("Any", value), seen)
        elif isinstance(value, (VirtualTensor, tuple)):
            container[key] = materialized(value)
