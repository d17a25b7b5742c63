"""Split names into words: `MCDropout`, `mcDropout` and `mc_dropout` have the same two; `Denoiser` has no "noise"."""

from __future__ import annotations

from functools import lru_cache

from dropkit.lint.semantic.pattern import pattern

_WORD = pattern(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


@lru_cache(maxsize=65536)
def words_of(name: str) -> str:
    """The words of a name, or of all names in a text, in lower case with spaces between.

    Example:
        >>> words_of("MCDropout2d"), words_of("pre_net"), words_of("isTraining"), words_of("LSTMCell")
        ('mc dropout 2 d', 'pre net', 'is training', 'lstm cell')
    """
    return " ".join(_WORD.findall(name)).lower()


class Vocabulary:
    """Whole words, as a regular expression over `words_of` names.

    Example:
        >>> Vocabulary("noise|noisy").has("NoiseLayer"), Vocabulary("noise|noisy").has("Denoiser")
        (True, False)
    """

    def __init__(self, words: str) -> None:
        self._pattern = pattern(rf"\b(?:{words})\b")

    def has(self, name: str) -> bool:
        """Whether a name has one of the words."""
        return self._pattern.search(words_of(name)) is not None
