"""The same layer, called several times in training, drops other elements each time; in eval mode it drops none."""

import torch

from dropkit.nn import Dropout

torch.manual_seed(0)
layer = Dropout(0.5)
x = torch.ones(8)

for _ in range(4):
    print("train", layer(x).tolist())

layer.eval()
for _ in range(2):
    print("eval ", layer(x).tolist())
