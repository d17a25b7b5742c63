"""Recognise random noise, as samplers of diffusion models and flows draw it."""

from __future__ import annotations

import ast

from dropkit.lint.semantic.expressions import last_name
from dropkit.lint.semantic.identifiers import Vocabulary
from dropkit.lint.semantic.model import SourceFile

_NOISE = Vocabulary(r"noises?|noisy|gaussian noise")
_DRAWS = frozenset({"randn", "randn_like", "normal", "normal_", "rand", "rand_like", "uniform_", "standard_normal"})


def draws_noise(source: SourceFile, expression: ast.expr | None) -> bool:
    """Whether a value is drawn at random: by its name, or by the call that draws it, perhaps scaled."""
    for origin in (expression, source.substitute(expression)) if expression is not None else ():
        for node in ast.walk(origin):
            is_drawn = isinstance(node, ast.Call) and source.last_name(node) in _DRAWS
            if is_drawn or (isinstance(node, (ast.Name, ast.Attribute)) and _NOISE.has(last_name(node))):
                return True
    return False
