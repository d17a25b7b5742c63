"""Dropout with a given key: differentiable, transformable, visible to whatever watches torch's operators."""
