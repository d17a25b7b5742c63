"""The words in names: `MCDropout`, `mcDropout` and `mc_dropout` have the same two, and `Denoiser` has no "noise"."""

from __future__ import annotations

import re
from functools import lru_cache

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


@lru_cache(maxsize=65536)
def spoken(name: str) -> str:
    """The words of a name, or of all names in a text, in lower case with spaces between.

    Example:
        >>> spoken("MCDropout2d"), spoken("pre_net"), spoken("isTraining"), spoken("LSTMCell")
        ('mc dropout 2 d', 'pre net', 'is training', 'lstm cell')
    """
    return " ".join(_WORD.findall(name)).lower()


class Vocabulary:
    """Whole words, as a regular expression over `spoken` names.

    Example:
        >>> Vocabulary("noise|noisy").has("NoiseLayer"), Vocabulary("noise|noisy").has("Denoiser")
        (True, False)
    """

    def __init__(self, words: str) -> None:
        self._pattern = re.compile(rf"\b(?:{words})\b")

    def has(self, name: str) -> bool:
        """Whether a name has one of the words."""
        return self._pattern.search(spoken(name)) is not None
