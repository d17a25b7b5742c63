"""The words by which names and text say that they are about dropout.

They decide only where no name resolves: hand-written layers, arguments, attributes of other files, unparsed files.
"""

from __future__ import annotations

import re
from functools import lru_cache

from dropkit.lint.semantic.pattern import pattern

# By convention of all libraries: `Dropout2d`, `VariationalDropout`, `DropPath`, `StochasticDepth`.
_LAYER_CLASS = pattern(r"(?:[A-Z]\w*)?(?:Dropout\w*|DropOut\w*|DropPath|DropBlock\w*|StochasticDepth|DropConnect)")
# Attributes of another class or file that hold a dropout layer.
LAYER_ATTRIBUTES = frozenset({"dropout", "drop", "drop_layer", "dropout_layer"})
_MASK = pattern(r"drop|keep|zone_?out", re.IGNORECASE)
# "dropout" with a letter too few or too many, or two exchanged.
_MISSPELT = (
    "d(?:ropuot|roput|rouput|roupout|rooput|ropot|ropoout|ropouut|ropoutt|roppout|ropput|ropount|ropuout|rpout|rpoout"
    "|ropotu|roupot|orpout|opout|rropout)"
)
_RATE = pattern(
    rf"(?:^|_)(?:\w*dropouts?|\w*drop|edrop|idrop|drop_?path|droprate)(?:_|$|\d)|dropout|{_MISSPELT}", re.IGNORECASE
)
# Choices, switches, and things that are dropped but are no units: `use_dropout`, `dropout_type`, `drop_last`.
_NO_RATE = pattern(
    r"(?:^|_)(?:use|do|with|apply|is|has|enable|no|mc|always|last|first|type|mode|kind|layer|layers|cls|class|fn|func|module"
    r"|name|key|seed|mask|inplace|shared?|axis|axes|dims?|tokens?|start|end|steps?|pos|position|location|cfg|config|args"
    r"|locations?|idx|index|schedule|scheduler|warmup|epochs?|before|after|on|off|connect_type|training|activation|op"
    r"|columns?|list|dict|kwargs|params?|null|nan|labels?|unused|same|final_layer)(?:_|$)|^_",
    re.IGNORECASE,
)
_KEEP_RATE = pattern(r"keep(?!_?(dim|train|alive))|retain_?(p|rate)|survival|survive", re.IGNORECASE)
# Attributes that may hold a dropout or its rate.
_ATTRIBUTE = pattern(r"d[ro]|dp|mask|reg|^d\d?$|^p$|rate|prob", re.IGNORECASE)
# No rule matches in a file without one of these, and without torch or something that may import it. To search for a
# word is ten times faster than for an expression of many: an expression comes with words of which its matches have one.
_WORDS = (
    b"ropout", b"drop_out", b"DropPath", b"drop_path", b"bernoulli", b"rand_like", b"no_grad", b"inference_mode",
    b"backward(", b"load_state_dict(", b".train(", b"def train(", b"def eval(", b"scaled_dot_product_attention",
    b"flash_attn_", b"memory_efficient_attention", b"preserve_rng_state", b"p_drop",
)  # fmt: skip
_CODE = (
    ((b".eval",), pattern(rb"\.eval\b")),
    ((b".training",), pattern(rb"\.training\s*=(?!=)")),
    ((b"_model(", b"_net(", b"_network(", b"_classifier("),
     pattern(rb"(?:load|build|make|create|get)_(?:model|net|network|classifier)\(")),
    ((b"(model", b"(net", b"(classifier", b"(self, model", b"(self, net", b"(self, classifier"),
     pattern(rb"def \w+\((?:self, )?(?:model|net|network|classifier)\b")),
    # An argument of another name for a rate: `attn_drop=0.1`.
    ((b"drop",), pattern(rb"drop(?:_?(?:rate|prob)|(?:\d|_p|_ratio|_fc|_attn|_emb)?\s*[=:,)])|" + _MISSPELT.encode())),
    ((b"drou", b"droo", b"drpo", b"dorpout", b"dopout"), pattern(_MISSPELT.encode())),
)  # fmt: skip
# What a file with any dropout has, by a layer, a function or a mask drawn by hand.
_DROPOUT = tuple(b"ropout rop_out ropPath rop_path ropBlock rop_block ropConnect bernoulli rand_like".split())
_IMPORTS = (b"torch", b"dropkit", b"mmengine", b"import *", b"transformers")
# A record with a rate as its field, in a file of settings alone.
_FIELD = pattern(rb"\n[ \t]+\w*[dD]rop\w*[ \t]*:")
_RECORDS = (b"dataclass", b"define", b"NamedTuple", b"BaseModel", b"BaseSettings")


def mentions_dropout(name: str) -> bool:
    """Whether a name has "drop" in it."""
    return "drop" in name.lower()


def is_likely_attribute(name: str) -> bool:
    """Whether an attribute of this name may hold a dropout or its rate."""
    return _ATTRIBUTE.search(name) is not None


def may_have_dropout(code: bytes) -> bool:
    """Whether source code mentions any dropout."""
    return any(word in code for word in _DROPOUT)


def may_match(code: bytes) -> bool:
    """Whether any rule could match in this source code."""
    if any(name in code for name in _IMPORTS):
        return any(word in code for word in _WORDS) or any(
            any(word in code for word in words) and expression.search(code) is not None for words, expression in _CODE
        )
    return b"drop" in code and any(word in code for word in _RECORDS) and _FIELD.search(code) is not None


def is_layer_class(name: str) -> bool:
    """Whether a class of this name is a dropout layer.

    Example:
        >>> [is_layer_class(name) for name in ("VariationalDropout", "DropPath", "Dropper", "dropout")]
        [True, True, False, False]
    """
    return _LAYER_CLASS.fullmatch(name) is not None


def mentions_mask(text: str) -> bool:
    """Whether source text speaks of dropping or keeping."""
    return _MASK.search(text) is not None


@lru_cache(maxsize=65536)
def is_rate_name(name: str) -> bool:
    """Whether an argument of this name is a dropout rate.

    Example:
        >>> [is_rate_name(name) for name in ("attn_dropout", "drop_rate", "droput", "drop_last", "use_dropout")]
        [True, True, True, False, False]
    """
    return _RATE.search(name) is not None and _NO_RATE.search(name) is None


def is_keep_rate_name(name: str) -> bool:
    """Whether a value of this name is the probability to keep.

    Example:
        >>> [is_keep_rate_name(name) for name in ("keep_prob", "survival_rate", "keepdim")]
        [True, True, False]
    """
    return _KEEP_RATE.search(name) is not None
