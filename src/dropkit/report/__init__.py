"""Presentation of results: units, plots, progress bars, terminal output and HTML pages."""
