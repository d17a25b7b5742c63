"""Run programs written for torch on dropkit: their operators, their modules, or a whole script."""
