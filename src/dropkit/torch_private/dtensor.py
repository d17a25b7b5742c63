"""DTensor: the local tensor, and the description of what each rank holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dropkit.torch_private.lookup import DTENSOR, attribute

# torch's public spellings, `to_local` and `from_local`, assume how gradients are placed, and take 10 us more each.
local_tensor: Callable[[Any], Any] = attribute("_local_tensor", DTENSOR)
dtensor_spec: Callable[[Any], Any] = attribute("_spec", DTENSOR)
