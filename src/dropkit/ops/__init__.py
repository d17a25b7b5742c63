"""Dropout by a mask: on the fast path with autograd, or as registered operators; and drawing and deriving keys."""
