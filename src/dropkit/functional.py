"""Dropout functions with torch's names and arguments and `generator=` and `key=` besides, and fused functions."""

from dropkit.nn.alpha_dropout import alpha_dropout as alpha_dropout
from dropkit.nn.bias_act_dropout_add import bias_act_dropout_add as bias_act_dropout_add
from dropkit.nn.concrete_dropout import concrete_dropout as concrete_dropout
from dropkit.nn.drop_block1d import drop_block1d as drop_block1d
from dropkit.nn.drop_block2d import drop_block2d as drop_block2d
from dropkit.nn.drop_block3d import drop_block3d as drop_block3d
from dropkit.nn.drop_head import drop_head as drop_head
from dropkit.nn.drop_path import drop_path as drop_path
from dropkit.nn.dropout import dropout as dropout
from dropkit.nn.dropout1d import dropout1d as dropout1d
from dropkit.nn.dropout2d import dropout2d as dropout2d
from dropkit.nn.dropout3d import dropout3d as dropout3d
from dropkit.nn.dropout_add import dropout_add as dropout_add
from dropkit.nn.dropout_add_norm import dropout_add_norm as dropout_add_norm
from dropkit.nn.embedding_dropout import embedding_dropout as embedding_dropout
from dropkit.nn.feature_alpha_dropout import feature_alpha_dropout as feature_alpha_dropout
from dropkit.nn.gaussian_dropout import gaussian_dropout as gaussian_dropout
from dropkit.nn.gaussian_noise import gaussian_noise as gaussian_noise
from dropkit.nn.locked_dropout import locked_dropout as locked_dropout
from dropkit.nn.patch_dropout import patch_dropout as patch_dropout
from dropkit.nn.r_drop import r_drop_loss as r_drop_loss
from dropkit.nn.r_drop import run_twice as run_twice
from dropkit.nn.residual_drop_path import residual_drop_path as residual_drop_path
from dropkit.nn.scaled_dot_product_attention import scaled_dot_product_attention as scaled_dot_product_attention
from dropkit.nn.word_dropout import word_dropout as word_dropout
from dropkit.nn.zoneout import zoneout as zoneout
from dropkit.public_names import public_names


def __dir__() -> list[str]:
    return public_names(globals())
