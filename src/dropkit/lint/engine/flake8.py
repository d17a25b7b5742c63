"""A flake8 plugin. flake8 selects rules and silences findings by its own settings and comments.

Source: flake8.pycqa.org, "Writing Plugins for Flake8". Settings of [tool.dropkit] that describe code, such as
always-on-names, apply here too; those that select rules do not.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dropkit
from dropkit.diagnostics import Severity
from dropkit.lint.engine.config import Config
from dropkit.lint.engine.project import check_source
from dropkit.lint.semantic.source_text import encode
from dropkit.rules import RULES, Default

# The code of files that flake8 can read and dropkit cannot; no rule has it.
_UNREAD = "DRP000"
_INFO_RULES = {rule.code for rule in RULES if rule.severity is Severity.INFO}


class Plugin:
    """The plugin for one file. flake8 passes `tree` only for files that parse; dropkit parses the source itself."""

    name = "dropkit"
    version: str = dropkit.__version__

    def __init__(self, tree: ast.AST, filename: str, lines: list[str]) -> None:
        self.filename = filename
        self.source: str = "".join(lines)

    @classmethod
    def add_options(cls, options: Any) -> None:
        """Ignore the rules that are off by default, until they are selected."""
        options.extend_default_ignore(
            [rule.code for rule in RULES if rule.check_source is not None and rule.default is not Default.ON]
        )

    def run(self) -> Iterator[tuple[int, int, str, type[Plugin]]]:
        """Yield line (from 1), column (from 0), code and message of each finding.

        Findings that depend on other files are left out: flake8 checks each file by itself.
        """
        path = Path.cwd() if self.filename in ("-", "stdin") else Path(self.filename)
        config = Config.load(path).with_options(
            select=("ALL",), extend_select=(), ignore=(), per_file_ignores={}, severity=Severity.INFO
        )
        result = check_source(self.filename, encode(self.source), config)
        for note in result.notes:
            yield note.line or 1, 0, f"{_UNREAD} not checked: {note.message}", Plugin
        for finding in result.findings:
            # Left out are `info` findings of more severe rules, which are probably intended: flake8 has no severities.
            is_shown = finding.severity is not Severity.INFO or finding.code in _INFO_RULES
            if is_shown and not finding.is_open:
                yield finding.span.line, finding.span.column - 1, f"{finding.code} {finding.message}", Plugin
