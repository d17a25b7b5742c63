"""Dropout modules with torch's names; each is a subclass of torch's module of the same name."""

from dropkit.nn import alpha_dropout, dropout, dropout1d, dropout2d, dropout3d, feature_alpha_dropout, script
from dropkit.nn.alpha_dropout import AlphaDropout
from dropkit.nn.dropout import Dropout
from dropkit.nn.dropout1d import Dropout1d
from dropkit.nn.dropout2d import Dropout2d
from dropkit.nn.dropout3d import Dropout3d
from dropkit.nn.feature_alpha_dropout import FeatureAlphaDropout

LAYERS = tuple(file.LAYER for file in (dropout, dropout1d, dropout2d, dropout3d, alpha_dropout, feature_alpha_dropout))

for _layer in LAYERS:
    script.prepare(_layer)

__all__ = ["LAYERS", "AlphaDropout", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "FeatureAlphaDropout"]
