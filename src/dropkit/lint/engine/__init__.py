"""The engine of `dropkit check`: find files, run the rules, apply fixes, keep results; and the editor's server."""
