"""Channel dropout on a batch of images: whole channels are dropped. One row per sample; # is kept, . is dropped."""

import torch

from dropkit.nn import Dropout, Dropout2d

torch.manual_seed(0)
images = torch.ones(4, 12, 8, 8)

for layer in (Dropout2d(0.5), Dropout(0.5)):
    kept = (layer(images) != 0).float().mean((2, 3))  # share of each channel that is kept
    print(layer)
    for sample in kept:
        print("  " + "".join("#" if share == 1 else "." if share == 0 else "?" for share in sample))
    print(f"  channels dropped in part: {int(((kept > 0) & (kept < 1)).sum())} of {kept.numel()}")
