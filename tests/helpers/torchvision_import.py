"""Import torchvision beside a build of torch without CUDA, also where another package imports it."""

import warnings
from types import ModuleType

import torch

_libraries: list[torch.library.Library] = []


def import_torchvision() -> ModuleType:
    """Return torchvision, after declaring the two operators whose absence makes its import fail.

    torchvision's wheel brings its operators compiled for torch with CUDA alone, and its import looks for them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import torchvision
        except RuntimeError:
            _libraries.append(torch.library.Library("torchvision", "DEF"))
            for name in ("nms", "qnms"):
                _libraries[0].define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            import torchvision
    return torchvision
