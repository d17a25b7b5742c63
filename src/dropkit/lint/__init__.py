"""The linter: a semantic model of source files, the engine that runs rules over them, output formats. No torch."""
