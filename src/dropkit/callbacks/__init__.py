"""Audits inside other people's training loops: one file for each."""
