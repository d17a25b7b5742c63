"""The checker as a plugin of flake8, which selects, ignores and silences by its own settings and comments.

Source: flake8.pycqa.org, "Writing Plugins for Flake8". Settings of [tool.dropkit] that say what code means, such as
always-on-names, hold here, too; those that choose rules do not.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dropkit
from dropkit.diagnostics import Diagnostic, Severity
from dropkit.lint.engine.config import Config
from dropkit.lint.engine.encoding import as_bytes
from dropkit.lint.engine.project import check_source
from dropkit.rules import RULES, Default

# No rule has this code: a file that flake8 can read and a rule cannot is not clean.
_UNREAD = "DRP000"
_MEANT_AS_INFO = {rule.code for rule in RULES if rule.severity is Severity.INFO}


class Plugin:
    """What flake8 makes for each file. `tree` asks it for files that parse; positions need the source itself."""

    name = "dropkit"
    version = dropkit.__version__

    def __init__(self, tree: ast.AST, filename: str, lines: list[str]) -> None:
        self.filename = filename
        self.source = "".join(lines)

    @classmethod
    def add_options(cls, options: Any) -> None:
        """Leave out, until they are selected, the rules that are off by default."""
        options.extend_default_ignore(
            [rule.code for rule in RULES if rule.check_source is not None and rule.default is not Default.ON]
        )

    def run(self) -> Iterator[tuple[int, int, str, type[Plugin]]]:
        """Line from 1, column from 0, code and message of each finding.

        Findings that another file could refute are left out: flake8 shows one file at a time.
        """
        path = Path.cwd() if self.filename in ("-", "stdin") else Path(self.filename)
        config = Config.load(path).with_options(
            select=("ALL",), extend_select=(), ignore=(), per_file_ignores={}, severity=Severity.INFO
        )
        outcome = check_source(self.filename, as_bytes(self.source), config)
        for note in outcome.notes:
            yield note.line or 1, 0, f"{_UNREAD} not checked: {note.message}", Plugin
        for finding in outcome.findings:
            if finding.unless is None and _is_shown(finding):
                yield finding.span.line, finding.span.column - 1, f"{finding.code} {finding.message}", Plugin


def _is_shown(finding: Diagnostic) -> bool:
    """A rule that is graver than `info` says `info` of what is most likely meant; flake8 knows no severities."""
    return finding.severity is not Severity.INFO or finding.code in _MEANT_AS_INFO
