"""Bring dropkit into programs written for torch: their modules, their operators, a whole script."""
