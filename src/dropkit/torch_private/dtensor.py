"""DTensor: the local tensor, and the description of what each rank holds."""

from __future__ import annotations

from dropkit.torch_private.lookup import DTENSOR, attribute

# torch's public spellings, `to_local` and `from_local`, assume how gradients are placed, and take 10 us more each.
local_tensor = attribute("_local_tensor", DTENSOR)
dtensor_spec = attribute("_spec", DTENSOR)
