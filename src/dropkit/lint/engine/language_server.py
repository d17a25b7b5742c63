"""The checker inside an editor: diagnostics while typing, fixes, and what a rule says when its code is pointed at.

Source: Microsoft, "Language Server Protocol Specification", version 3.17. Needs pygls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote

from lsprotocol import types as lsp
from pygls.exceptions import JsonRpcException
from pygls.lsp.server import LanguageServer
from pygls.workspace import TextDocument

import dropkit
from dropkit import files
from dropkit.diagnostics import Diagnostic, Edit, Severity
from dropkit.lint.engine.check_file import mend
from dropkit.lint.engine.config import BadConfig, Config
from dropkit.lint.engine.discovery import excludes
from dropkit.lint.engine.encoding import as_bytes
from dropkit.lint.engine.lsp_errors import Protocol
from dropkit.lint.engine.project import check_paths, check_source
from dropkit.lint.engine.result import Outcome
from dropkit.lint.engine.rule_docs import page
from dropkit.lint.semantic.source_text import Text
from dropkit.rules import RULES

# How long typing must rest before a document is checked, in seconds.
_REST = 0.2
# What an editor calls a file, and text that is to become one. Others are views of something else.
_SCHEMES = ("file", "untitled")
_FIX_ALL = "source.fixAll.dropkit"
_SEVERITIES = {
    Severity.ERROR: lsp.DiagnosticSeverity.Error,
    Severity.WARNING: lsp.DiagnosticSeverity.Warning,
    Severity.INFO: lsp.DiagnosticSeverity.Information,
}
_RULES = {rule.code: rule for rule in RULES}


@dataclass(frozen=True, slots=True)
class _View:
    """What is known of a document: its text, what was found in it, and the client's way of counting columns."""

    document: TextDocument
    config: Config
    text: Text
    findings: tuple[Diagnostic, ...]

    def position(self, line: int, column: int) -> lsp.Position:
        """A position for the client: from 0, in the units that it counts."""
        before = self.text.line(line)[: column - 1]
        return lsp.Position(line - 1, self.document.position_codec.client_num_units(before))

    def range(self, finding: Diagnostic) -> lsp.Range:
        span = finding.span
        return lsp.Range(self.position(span.line, span.column), self.position(span.end_line, span.end_column))

    def mended(self, findings: Iterable[Diagnostic]) -> list[Diagnostic]:
        """Those of `findings` whose fixes hold, together."""
        return mend(self.document.path, self.text, list(findings), self.config.rules)[1]

    def change(self, findings: Iterable[Diagnostic]) -> lsp.WorkspaceEdit:
        """The fixes of `findings` as one edit of this version of the document."""
        edits = [self._edit(edit) for one in findings if one.fix is not None for edit in one.fix.edits]
        return lsp.WorkspaceEdit(changes={self.document.uri: edits})

    def _edit(self, edit: Edit) -> lsp.TextEdit:
        start, end = self.text.position(edit.start), self.text.position(edit.end)
        return lsp.TextEdit(lsp.Range(self.position(*start), self.position(*end)), edit.text)


class Server(LanguageServer):
    """A language server. `confirmed` holds, by document, what the last look at the whole project let stand."""

    def __init__(self) -> None:
        # Whole documents: pygls applies changes to lines that end where Python's do not.
        super().__init__("dropkit", dropkit.__version__, lsp.TextDocumentSyncKind.Full, protocol_cls=Protocol)
        self.confirmed: dict[str, set[tuple[str, str]]] = {}

    def report_server_error(self, error: Exception, source: Any) -> None:
        """Answer a message that could not be read; show the user any other error."""
        if source is not JsonRpcException or not cast("Protocol", self.protocol).refuse_unreadable(error):
            super().report_server_error(error, source)

    def document(self, uri: str) -> TextDocument | None:
        """The open document of this name; None where it is not open, or is not one that could be a file."""
        document = self.workspace.text_documents.get(unquote(uri))
        if document is None or uri.partition(":")[0] not in _SCHEMES or "\0" in document.path:
            return None
        return document

    def view(self, uri: str) -> _View | None:
        """Check a document as it is in the editor; None where it is not to be checked.

        Raises:
            BadConfig: its pyproject.toml has a setting that is not one.
        """
        document = self.document(uri)
        if document is None:
            return None
        config = Config.load(Path(document.path))
        if document.path.endswith(".ipynb") or excludes(document.path, config):
            return None
        outcome = check_source(document.path, as_bytes(document.source), config)
        known = self.confirmed.get(uri, set())
        findings = tuple(one for one in outcome.findings if one.unless is None or (one.code, one.message) in known)
        return _View(document, config, _text(outcome, document), findings)

    def ask_project(self, uri: str) -> None:
        """Find out which findings other files of the project do not refute; the document must be saved."""
        document = self.document(uri)
        if document is None:
            return
        path = document.path
        try:
            config = Config.load(Path(path))
            if path.endswith(".ipynb") or not any(one.unless for one in self._asking(path, config)):
                self.confirmed.pop(uri, None)
                return
            outcome = check_paths([path], config, jobs=1)
        except (BadConfig, OSError):
            return
        self.confirmed[uri] = {(one.code, one.message) for one in outcome.findings}

    def publish(self, uri: str) -> None:
        """Send the diagnostics of a document."""
        try:
            view = self.view(uri)
        except BadConfig as error:
            self.window_show_message(lsp.ShowMessageParams(lsp.MessageType.Error, f"dropkit: {error}"))
            view = None
        diagnostics = [] if view is None else [_diagnostic(view, finding) for finding in view.findings]
        document = self.document(uri)
        version = None if document is None else document.version
        self.text_document_publish_diagnostics(lsp.PublishDiagnosticsParams(uri, diagnostics, version))

    @staticmethod
    def _asking(path: str, config: Config) -> tuple[Diagnostic, ...]:
        return check_source(path, files.read(path), config).findings


def create() -> Server:
    """A server with everything it answers."""
    server = Server()

    @server.feature(lsp.TEXT_DOCUMENT_DID_OPEN)
    def opened(params: lsp.DidOpenTextDocumentParams) -> None:
        server.ask_project(params.text_document.uri)
        server.publish(params.text_document.uri)

    @server.feature(lsp.TEXT_DOCUMENT_DID_SAVE)
    def saved(params: lsp.DidSaveTextDocumentParams) -> None:
        server.ask_project(params.text_document.uri)
        server.publish(params.text_document.uri)

    @server.feature(lsp.TEXT_DOCUMENT_DID_CHANGE)
    async def changed(params: lsp.DidChangeTextDocumentParams) -> None:
        uri, version = params.text_document.uri, params.text_document.version
        await asyncio.sleep(_REST)
        # Of several changes in a row only the last is checked, and none of a document closed since.
        document = server.document(uri)
        if document is not None and document.version == version:
            server.publish(uri)

    @server.feature(lsp.TEXT_DOCUMENT_DID_CLOSE)
    def closed(params: lsp.DidCloseTextDocumentParams) -> None:
        server.confirmed.pop(params.text_document.uri, None)
        server.text_document_publish_diagnostics(lsp.PublishDiagnosticsParams(params.text_document.uri, []))

    kinds = [lsp.CodeActionKind.QuickFix, _FIX_ALL]

    @server.feature(lsp.TEXT_DOCUMENT_CODE_ACTION, lsp.CodeActionOptions(code_action_kinds=kinds))
    def actions(params: lsp.CodeActionParams) -> list[lsp.CodeAction]:
        view = _view_or_none(server, params.text_document.uri)
        return [] if view is None else list(_actions(view, params))

    @server.feature(lsp.TEXT_DOCUMENT_HOVER)
    def pointed(params: lsp.HoverParams) -> lsp.Hover | None:
        view = _view_or_none(server, params.text_document.uri)
        return None if view is None else _hover(view, params.position)

    del opened, saved, changed, closed, actions, pointed
    return server


def _view_or_none(server: Server, uri: str) -> _View | None:
    try:
        return server.view(uri)
    except BadConfig:
        # Said when the diagnostics were sent.
        return None


def _text(outcome: Outcome, document: TextDocument) -> Text:
    return next(iter(outcome.texts.values()), Text(document.source.encode(errors="replace")))


def _diagnostic(view: _View, finding: Diagnostic) -> lsp.Diagnostic:
    return lsp.Diagnostic(
        range=view.range(finding),
        message=finding.message,
        severity=_SEVERITIES[finding.severity],
        code=finding.code,
        source="dropkit",
    )


def _actions(view: _View, params: lsp.CodeActionParams) -> Iterator[lsp.CodeAction]:
    if _asked_for(lsp.CodeActionKind.QuickFix, params):
        for finding in view.findings:
            if finding.fix is not None and _meet(view.range(finding), params.range) and view.mended([finding]):
                yield _quick_fix(view, finding)
    if _asked_for(_FIX_ALL, params):
        taken = view.mended(one for one in view.findings if one.fix is not None and one.fix.safe)
        if taken:
            title = "Mend all misuse of dropout that has a safe fix"
            yield lsp.CodeAction(title, kind=_FIX_ALL, edit=view.change(taken))


def _quick_fix(view: _View, finding: Diagnostic) -> lsp.CodeAction:
    safe = finding.fix is not None and finding.fix.safe
    title = finding.fix.title if finding.fix is not None else ""
    return lsp.CodeAction(
        title=f"{finding.code}: {title}" if safe else f"{finding.code}: {title} (unsafe)",
        kind=lsp.CodeActionKind.QuickFix,
        diagnostics=[_diagnostic(view, finding)],
        is_preferred=safe,
        edit=view.change([finding]),
    )


def _asked_for(kind: str, params: lsp.CodeActionParams) -> bool:
    """A client that names kinds means these and what is below them."""
    only = params.context.only
    return only is None or any(kind == one or kind.startswith(f"{one}.") for one in only)


def _meet(one: lsp.Range, other: lsp.Range) -> bool:
    return one.start <= other.end and other.start <= one.end


def _hover(view: _View, position: lsp.Position) -> lsp.Hover | None:
    for finding in view.findings:
        where = view.range(finding)
        if where.start <= position <= where.end:
            content = lsp.MarkupContent(lsp.MarkupKind.Markdown, page(_RULES[finding.code]))
            return lsp.Hover(content, where)
    return None
