"""Moment propagation: the mean and the variance of every element, through one pass of a model.

A `Moments` tensor stands for the output of a dropout and for whatever is computed from it; `rules.RULES` says what
functions of torch do to it.
"""

from dropkit.mc.moments import rules as rules
