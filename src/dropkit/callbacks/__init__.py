"""Callbacks that audit a model inside the training loop of another library, one file for each library."""
