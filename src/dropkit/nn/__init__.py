"""Dropout modules with torch's names; each is a subclass of torch's module of the same name."""

from dropkit.nn import alpha_dropout, dropout, dropout1d, dropout2d, dropout3d, feature_alpha_dropout, torchscript
from dropkit.nn.alpha_dropout import AlphaDropout
from dropkit.nn.bias_act_dropout_add import BiasActDropoutAdd
from dropkit.nn.dropout import Dropout
from dropkit.nn.dropout1d import Dropout1d
from dropkit.nn.dropout2d import Dropout2d
from dropkit.nn.dropout3d import Dropout3d
from dropkit.nn.dropout_add import DropoutAdd
from dropkit.nn.dropout_add_norm import DropoutAddNorm
from dropkit.nn.feature_alpha_dropout import FeatureAlphaDropout

LAYERS = tuple(file.LAYER for file in (dropout, dropout1d, dropout2d, dropout3d, alpha_dropout, feature_alpha_dropout))

for _layer in LAYERS:
    torchscript.prepare(_layer)

# Dropout with what stands around it: torch has no module of the kind.
FUSED = (DropoutAdd, DropoutAddNorm, BiasActDropoutAdd)

__all__ = [
    "FUSED",
    "LAYERS",
    "AlphaDropout",
    "BiasActDropoutAdd",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "DropoutAdd",
    "DropoutAddNorm",
    "FeatureAlphaDropout",
]
