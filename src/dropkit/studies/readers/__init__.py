"""Readers: data for a study from files of several formats, from other packages, and from what is installed.

Another format is a module with a function from what follows the prefix to `Data`, and its entry in `READERS`.
"""

from dropkit.studies.readers.registry import READERS, Reader, read, recipe

__all__ = ["READERS", "Reader", "read", "recipe"]
