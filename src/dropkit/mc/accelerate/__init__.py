"""Faster sampling with equal results: a cache of the deterministic prefix, and layers without their dropped inputs."""
