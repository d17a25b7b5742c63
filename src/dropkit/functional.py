"""Dropout functions with torch's names and arguments, and `generator=` and `key=` besides; and dropout with what stands
around it as one function.
"""

from dropkit.nn.alpha_dropout import alpha_dropout
from dropkit.nn.bias_act_dropout_add import bias_act_dropout_add
from dropkit.nn.dropout import dropout
from dropkit.nn.dropout1d import dropout1d
from dropkit.nn.dropout2d import dropout2d
from dropkit.nn.dropout3d import dropout3d
from dropkit.nn.dropout_add import dropout_add
from dropkit.nn.dropout_add_norm import dropout_add_norm
from dropkit.nn.feature_alpha_dropout import feature_alpha_dropout

__all__ = [
    "alpha_dropout",
    "bias_act_dropout_add",
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "dropout_add",
    "dropout_add_norm",
    "feature_alpha_dropout",
]
