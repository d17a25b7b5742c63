"""Dropout modules: torch's, by torch's names and as subclasses of torch's modules, and those that torch lacks."""

import sys

import torch

from dropkit.nn import composed_layer, layer, torchscript
from dropkit.nn.alpha_dropout import AlphaDropout as AlphaDropout
from dropkit.nn.batchwise_conv import BatchwiseConv as BatchwiseConv
from dropkit.nn.batchwise_mlp import BatchwiseMLP as BatchwiseMLP
from dropkit.nn.bias_act_dropout_add import BiasActDropoutAdd as BiasActDropoutAdd
from dropkit.nn.concrete_dropout import ConcreteDropout as ConcreteDropout
from dropkit.nn.concrete_dropout import concrete_regularization as concrete_regularization
from dropkit.nn.drop_block1d import DropBlock1d as DropBlock1d
from dropkit.nn.drop_block2d import DropBlock2d as DropBlock2d
from dropkit.nn.drop_block3d import DropBlock3d as DropBlock3d
from dropkit.nn.drop_head import DropHead as DropHead
from dropkit.nn.drop_path import DropPath as DropPath
from dropkit.nn.drop_path import rates_over_depth as rates_over_depth
from dropkit.nn.dropout import Dropout as Dropout
from dropkit.nn.dropout1d import Dropout1d as Dropout1d
from dropkit.nn.dropout2d import Dropout2d as Dropout2d
from dropkit.nn.dropout3d import Dropout3d as Dropout3d
from dropkit.nn.dropout_add import DropoutAdd as DropoutAdd
from dropkit.nn.dropout_add_norm import DropoutAddNorm as DropoutAddNorm
from dropkit.nn.embedding_dropout import EmbeddingDropout as EmbeddingDropout
from dropkit.nn.feature_alpha_dropout import FeatureAlphaDropout as FeatureAlphaDropout
from dropkit.nn.feed_forward import FeedForward as FeedForward
from dropkit.nn.gaussian_dropout import GaussianDropout as GaussianDropout
from dropkit.nn.gaussian_noise import GaussianNoise as GaussianNoise
from dropkit.nn.layer_drop import LayerDrop as LayerDrop
from dropkit.nn.locked_dropout import LockedDropout as LockedDropout
from dropkit.nn.patch_dropout import PatchDropout as PatchDropout
from dropkit.nn.recurrent_dropout import RecurrentDropout as RecurrentDropout
from dropkit.nn.residual_drop_path import ResidualDropPath as ResidualDropPath
from dropkit.nn.weight_drop import WeightDrop as WeightDrop
from dropkit.nn.word_dropout import WordDropout as WordDropout
from dropkit.nn.zoneout import Zoneout as Zoneout
from dropkit.nn.zoneout_cell import ZoneoutCell as ZoneoutCell
from dropkit.public_names import public_names

_modules = [cls for cls in vars().values() if isinstance(cls, type) and issubclass(cls, torch.nn.Module)]
# The record of each layer that is imported above.
_records = {cls: vars(sys.modules[cls.__module__]).get("LAYER") for cls in _modules}
LAYERS: tuple[layer.Layer, ...] = tuple(
    record for cls, record in _records.items() if isinstance(record, layer.Layer) and record.module is cls
)
COMPOSED: tuple[composed_layer.ComposedLayer, ...] = tuple(
    record
    for cls, record in _records.items()
    if isinstance(record, composed_layer.ComposedLayer) and record.module is cls
)
# Modules that fuse dropout with the operations around it.
FUSED = tuple(cls for cls in _modules if cls not in {record.module for record in (*LAYERS, *COMPOSED)})

for _layer in LAYERS:
    torchscript.prepare(_layer)


def __dir__() -> list[str]:
    return public_names(globals())
