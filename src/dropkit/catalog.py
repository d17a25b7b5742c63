"""The functions and layers that matter for dropout, by dotted name, with the positions of their arguments.

They belong to torch 2.13's public interface, and to libraries with dropout of their own. dropkit's layers and functions
have torch's contract, so they count as torch's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# Prefixes of other names for the same things, and the canonical prefix; the first match is replaced.
_ALIASES = (
    ("dropkit.nn.", "torch.nn."),
    ("dropkit.functional.", "torch.nn.functional."),
    ("torch.nn.modules.", "torch.nn."),
    ("torch._C._nn.", "torch.nn.functional."),
    ("pytorch_lightning.", "lightning.pytorch."),
    ("lightning.LightningModule", "lightning.pytorch.LightningModule"),
    ("flash_attn.flash_attn_interface.", "flash_attn."),
    ("xformers.ops.fmha.", "xformers.ops."),
)


def canonical(name: str) -> str:
    """Return the canonical form of a dotted name.

    Example:
        >>> canonical("torch.nn.modules.dropout.Dropout")
        'torch.nn.Dropout'
        >>> canonical("dropkit.functional.dropout")
        'torch.nn.functional.dropout'
    """
    for alias, prefix in _ALIASES:
        if name.startswith(alias):
            name = prefix + name[len(alias) :]
            if alias == "torch.nn.modules.":
                # torch.nn.modules.dropout.Dropout: drop the name of the file, too.
                name = prefix + name.rsplit(".", 1)[1]
            break
    return name


@dataclass(frozen=True, slots=True)
class Functional:
    """A function that drops: the positions of its arguments, and the default of `training`."""

    p: int
    training: int
    inplace: int | None
    p_name: str = "p"
    training_name: str = "training"
    training_default: bool | None = True
    module: str | None = None


_F = "torch.nn.functional."

# Every function that drops if its flag is true, by canonical name.
FUNCTIONALS: dict[str, Functional] = {
    _F + "dropout": Functional(1, 2, 3, module="Dropout"),
    _F + "dropout1d": Functional(1, 2, 3, module="Dropout1d"),
    _F + "dropout2d": Functional(1, 2, 3, module="Dropout2d"),
    _F + "dropout3d": Functional(1, 2, 3, module="Dropout3d"),
    # The only functions of torch whose `training` is False by default.
    _F + "alpha_dropout": Functional(1, 2, 3, training_default=False, module="AlphaDropout"),
    _F + "feature_alpha_dropout": Functional(1, 2, 3, training_default=False, module="FeatureAlphaDropout"),
    # Only in dropkit.
    _F + "concrete_dropout": Functional(1, 2, None),
    _F + "drop_block1d": Functional(1, 3, 4),
    _F + "drop_block2d": Functional(1, 3, 4),
    _F + "drop_block3d": Functional(1, 3, 4),
    _F + "drop_head": Functional(1, 2, 3),
    _F + "drop_path": Functional(1, 2, 3),
    _F + "gaussian_dropout": Functional(1, 2, 3),
    _F + "locked_dropout": Functional(1, 2, 3),
    _F + "embedding_dropout": Functional(2, 3, None),
    _F + "word_dropout": Functional(2, 3, None),
    _F + "residual_drop_path": Functional(2, 3, None),
    _F + "zoneout": Functional(2, 3, None),
    _F + "patch_dropout": Functional(1, 2, None),
    _F + "dropout_add": Functional(2, 3, None),
    _F + "dropout_add_norm": Functional(4, 5, None),
    _F + "bias_act_dropout_add": Functional(3, 4, None),
    # These have no default: a call without the flag fails.
    "torch.dropout": Functional(1, 2, None, training_name="train", training_default=None),
    "torch.alpha_dropout": Functional(1, 2, None, training_name="train", training_default=None),
    "torch.feature_dropout": Functional(1, 2, None, training_name="train", training_default=None),
    "torch.feature_alpha_dropout": Functional(1, 2, None, training_name="train", training_default=None),
    "torch.native_dropout": Functional(1, 2, None, training_name="train", training_default=None),
    "torchvision.ops.stochastic_depth": Functional(1, 3, None),
    "torchvision.ops.drop_block2d": Functional(1, 5, 3),
    "torchvision.ops.drop_block3d": Functional(1, 5, 3),
}

# Modules that zero elements or whole channels, by canonical name; all take (p, inplace).
DROPOUT_MODULES = frozenset(
    "torch.nn." + name
    for name in ("Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout")
)
# Linear layers of other libraries whose weight is (inputs, outputs), the transpose of torch's.
TRANSPOSED_LINEAR = frozenset({"transformers.pytorch_utils.Conv1D"})
# Modules that skip whole branches or blocks, by last name: every library has its own.
DROPOUT_PATHS = frozenset({"DropHead", "DropPath", "StochasticDepth", "DropBlock1d", "DropBlock2d", "DropBlock3d"})
# Layers whose first argument is certainly the rate to drop.
RATED_LAYERS = DROPOUT_MODULES | {
    "torch.nn.DropBlock1d", "torch.nn.DropBlock2d", "torch.nn.DropBlock3d", "torch.nn.DropHead", "torch.nn.DropPath",
    "torch.nn.GaussianDropout", "torch.nn.LockedDropout", "torch.nn.PatchDropout", "torch.nn.Zoneout",
    "torchvision.ops.StochasticDepth",
}  # fmt: skip
CHANNEL_DROPOUTS = frozenset("torch.nn." + name for name in ("Dropout1d", "Dropout2d", "Dropout3d"))

# Attention functions whose rate is a number that follows no mode: its position and its name.
ATTENTION: dict[str, tuple[int | None, str]] = {
    _F + "scaled_dot_product_attention": (4, "dropout_p"),
    _F + "_scaled_dot_product_attention": (4, "dropout_p"),
    "torch.ops.aten.scaled_dot_product_attention": (4, "dropout_p"),
    "flash_attn.flash_attn_func": (3, "dropout_p"),
    "flash_attn.flash_attn_qkvpacked_func": (1, "dropout_p"),
    "flash_attn.flash_attn_kvpacked_func": (2, "dropout_p"),
    "flash_attn.flash_attn_varlen_func": (7, "dropout_p"),
    "flash_attn.flash_attn_varlen_qkvpacked_func": (3, "dropout_p"),
    "flash_attn.flash_attn_varlen_kvpacked_func": (6, "dropout_p"),
    "flash_attn.flash_attn_unpadded_func": (7, "dropout_p"),
    "flash_attn.flash_attn_unpadded_qkvpacked_func": (3, "dropout_p"),
    "flash_attn.flash_attn_unpadded_kvpacked_func": (6, "dropout_p"),
    "xformers.ops.memory_efficient_attention": (4, "p"),
    "xformers.ops.memory_efficient_attention_forward": (4, "p"),
}

# Functions of transformers that are chosen at run time: known by their last name, with the keyword of the rate.
ATTENTION_BY_LAST_NAME = {"attention_interface": "dropout", "_flash_attention_forward": "dropout"}

# F.multi_head_attention_forward(..., dropout_p, ..., training=True, ...): the positions of rate and flag.
MULTI_HEAD = _F + "multi_head_attention_forward"
MULTI_HEAD_P, MULTI_HEAD_TRAINING = 10, 13

# Layers with dropout inside: the position (None: keyword only) and the name of the rate.
HOLDERS: dict[str, tuple[int | None, str]] = {
    "torch.nn.LSTM": (None, "dropout"),
    "torch.nn.GRU": (None, "dropout"),
    "torch.nn.RNN": (None, "dropout"),
    "torch.nn.MultiheadAttention": (2, "dropout"),
    "torch.nn.Transformer": (5, "dropout"),
    "torch.nn.TransformerEncoderLayer": (3, "dropout"),
    "torch.nn.TransformerDecoderLayer": (3, "dropout"),
}

RNNS = ("torch.nn.LSTM", "torch.nn.GRU", "torch.nn.RNN")

BATCH_NORMS = frozenset(
    "torch.nn." + name for name in ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "SyncBatchNorm", "LazyBatchNorm1d",
                                    "LazyBatchNorm2d", "LazyBatchNorm3d")
)  # fmt: skip

# Activations that commute with dropout (positively homogeneous: f(a x) = a f(x) for a >= 0), and all activations.
HOMOGENEOUS = frozenset("torch.nn." + name for name in ("ReLU", "LeakyReLU", "PReLU", "RReLU", "Identity"))
ACTIVATIONS = HOMOGENEOUS | frozenset(
    "torch.nn." + name
    for name in ("GELU", "Tanh", "Sigmoid", "SiLU", "ELU", "CELU", "SELU", "Mish", "Softplus", "Softsign",
                 "Hardswish", "Hardtanh", "Hardsigmoid", "ReLU6", "LogSigmoid", "Tanhshrink", "Softshrink")
)  # fmt: skip
SOFTMAXES = frozenset({"torch.nn.Softmax", "torch.nn.LogSoftmax", "torch.nn.Softmax2d"})

# Modules of torch with dropout inside, by last name.
HOLDER_KINDS = frozenset(name.rpartition(".")[2] for name in ("torch.nn.MultiheadAttention", *RNNS))
# Last word of the class names of layers that only drop, whatever library they are from.
DROPOUT_CLASS_NAME = re.compile(
    r"(drop_?out|drop_?path|drop_?head|stochastic_?depth|drop_?block|drop_?connect|drop_?key)\w{0,3}$", re.IGNORECASE
)
# What a trace calls lists of layers of which a step skips some, whatever library or program they are from.
LAYER_DROP = "LayerDrop"
# Attributes in which such layers store their rate.
RATE_ATTRIBUTES = ("p", "drop_prob", "dropout", "dropout_p", "drop_rate", "rate", "prob", "drop")

# The same by last name, which a trace uses for modules and the functions that run in their place.
ACTIVATION_KINDS = frozenset(name.rpartition(".")[2] for name in ACTIVATIONS)
HOMOGENEOUS_KINDS = frozenset(name.rpartition(".")[2] for name in HOMOGENEOUS)
SOFTMAX_KINDS = frozenset(name.rpartition(".")[2] for name in SOFTMAXES)
CHANNEL_KINDS = frozenset(name.rpartition(".")[2] for name in CHANNEL_DROPOUTS) | {
    "dropout1d", "dropout2d", "dropout3d"
}  # fmt: skip
# Operations whose backward pass reads their output.
NEEDS_ITS_OUTPUT = SOFTMAX_KINDS | {"ReLU", "Sigmoid", "Tanh", "exp", "sqrt", "rsqrt"}

# Modules whose presence makes `model.eval()` matter.
MODE_DEPENDENT = DROPOUT_MODULES | BATCH_NORMS
# Modules with those inside: their rate is 0.1 by default.
TRANSFORMERS = frozenset(
    "torch.nn." + name for name in ("Transformer", "TransformerEncoderLayer", "TransformerDecoderLayer")
)

# Base classes of Modules besides those of torch.nn, by last name.
MODULE_BASES = frozenset(
    {"Module", "LightningModule", "PreTrainedModel", "BaseModule", "BaseModel", "MessagePassing", "FairseqModel"}
)
# Libraries whose Modules are certainly torch's.
MODULE_LIBRARIES = (
    "torch.nn.", "lightning.", "transformers.", "torchvision.", "timm.", "torch_geometric.", "fairseq.", "mmengine.",
    "mmcv.", "diffusers.", "speechbrain.", "nemo.",
)  # fmt: skip
# Frameworks other than torch, which use such names for their own classes.
OTHER_FRAMEWORKS = (
    "chainer.",
    "flax.",
    "tensorflow.",
    "keras.",
    "pydantic.",
    "paddle.",
    "mindspore.",
    "jittor.",
    "peewee.",
)
# Calls that register the layers of a plain container.
REGISTERING = frozenset({"ModuleList", "ModuleDict", "Sequential", "add_module", "register_module"})
