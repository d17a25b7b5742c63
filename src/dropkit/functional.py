"""Dropout functions with torch's names and arguments, and `generator=` and `key=` besides."""

from dropkit.nn.alpha_dropout import alpha_dropout
from dropkit.nn.dropout import dropout
from dropkit.nn.dropout1d import dropout1d
from dropkit.nn.dropout2d import dropout2d
from dropkit.nn.dropout3d import dropout3d
from dropkit.nn.feature_alpha_dropout import feature_alpha_dropout

__all__ = ["alpha_dropout", "dropout", "dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout"]
