"""A stand-in for what torchvision lacks beside a torch without CUDA: its import, which other packages want."""

from __future__ import annotations

import warnings

import torch

_operators: list[torch.library.Library] = []


def stand_in_for_torchvision() -> None:
    """torchvision's wheel has operators for CUDA builds of torch only; others import it, unused here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import torchvision  # noqa: F401
        except RuntimeError:
            _operators.append(torch.library.Library("torchvision", "DEF"))
            for name in ("nms", "qnms"):
                _operators[0].define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
