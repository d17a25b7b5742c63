"""The language server: diagnostics while typing, quick fixes, and the page of a rule on hover.

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
from dropkit.diagnostics import Diagnostic, Edit, Fix, Severity
from dropkit.lint.engine.config import BadConfig, Config
from dropkit.lint.engine.discovery import excludes
from dropkit.lint.engine.fixing import fix_text
from dropkit.lint.engine.lsp_errors import Protocol
from dropkit.lint.engine.project import check_paths, check_source
from dropkit.lint.engine.rule_docs import page
from dropkit.lint.semantic.source_text import Text, encode
from dropkit.rules import RULES

# Seconds without a change before a document is checked.
_DELAY = 0.2
# Files, and new documents. Other schemes are views of something else, such as an old version.
_SCHEMES = ("file", "untitled")
_FIX_ALL = "source.fixAll.dropkit"
_SEVERITIES = {
    Severity.ERROR: lsp.DiagnosticSeverity.Error,
    Severity.WARNING: lsp.DiagnosticSeverity.Warning,
    Severity.INFO: lsp.DiagnosticSeverity.Information,
}
_RULES = {rule.code: rule for rule in RULES}


@dataclass(frozen=True, slots=True)
class _CheckedDocument:
    """A checked document: its text, its settings, its findings, and the client's encoding of columns."""

    document: TextDocument
    config: Config
    text: Text
    findings: tuple[Diagnostic, ...]

    def position(self, line: int, column: int) -> lsp.Position:
        """Convert a position to the client's: from 0, in its units."""
        before = self.text.line(line)[: column - 1]
        return lsp.Position(line - 1, self.document.position_codec.client_num_units(before))

    def range(self, finding: Diagnostic) -> lsp.Range:
        span = finding.span
        return lsp.Range(self.position(span.line, span.column), self.position(span.end_line, span.end_column))

    def fixable(self, findings: Iterable[Diagnostic]) -> list[Diagnostic]:
        """Those of `findings` whose fixes are correct when they are applied together."""
        return fix_text(self.document.path, self.text, list(findings), self.config.rules)[1]

    def workspace_edit(self, findings: Iterable[Diagnostic]) -> lsp.WorkspaceEdit:
        """The fixes of `findings` as one edit of the document."""
        edits = [self._edit(edit) for finding in findings if finding.fix is not None for edit in finding.fix.edits]
        return lsp.WorkspaceEdit(changes={self.document.uri: edits})

    def _edit(self, edit: Edit) -> lsp.TextEdit:
        start, end = self.text.position(edit.start), self.text.position(edit.end)
        return lsp.TextEdit(lsp.Range(self.position(*start), self.position(*end)), edit.text)


class Server(LanguageServer):
    """The server. `confirmed` holds, by document, the findings that the last check of the project did not refute."""

    def __init__(self) -> None:
        # Clients send whole documents: pygls splits lines at other characters than Python when it applies changes.
        super().__init__("dropkit", dropkit.__version__, lsp.TextDocumentSyncKind.Full, protocol_cls=Protocol)
        self.confirmed: dict[str, set[tuple[str, str]]] = {}

    def report_server_error(self, error: Exception, source: Any) -> None:
        """Answer unreadable messages; show all other errors to the user."""
        if source is not JsonRpcException or not cast("Protocol", self.protocol).refuse_unreadable(error):
            super().report_server_error(error, source)

    def document(self, uri: str) -> TextDocument | None:
        """The open document; None if it is not open, or cannot be a file."""
        document = self.workspace.text_documents.get(unquote(uri))
        if document is None or uri.partition(":")[0] not in _SCHEMES or "\0" in document.path:
            return None
        return document

    def check(self, uri: str) -> _CheckedDocument | None:
        """Check a document as it is in the editor; return None if it is excluded.

        Raises:
            BadConfig: its pyproject.toml has an invalid setting.
        """
        document = self.document(uri)
        if document is None:
            return None
        config = Config.load(Path(document.path))
        if document.path.endswith(".ipynb") or excludes(document.path, config):
            return None
        result = check_source(document.path, encode(document.source), config)
        confirmed = self.confirmed.get(uri, set())
        findings = tuple(f for f in result.findings if not f.is_open or (f.code, f.message) in confirmed)
        text = next(iter(result.texts.values()), Text(document.source.encode(errors="replace")))
        return _CheckedDocument(document, config, text, findings)

    def check_project(self, uri: str) -> None:
        """Find the findings that no other file of the project refutes; the document must be saved."""
        document = self.document(uri)
        if document is None:
            return
        path = document.path
        try:
            config = Config.load(Path(path))
            is_notebook = path.endswith(".ipynb")
            if is_notebook or not any(f.is_open for f in check_source(path, files.read(path), config).findings):
                self.confirmed.pop(uri, None)
                return
            result = check_paths([path], config, jobs=1)
        except (BadConfig, OSError):
            return
        self.confirmed[uri] = {(finding.code, finding.message) for finding in result.findings}

    def publish(self, uri: str) -> None:
        """Send the diagnostics of a document."""
        try:
            checked = self.check(uri)
        except BadConfig as error:
            self.window_show_message(lsp.ShowMessageParams(lsp.MessageType.Error, f"dropkit: {error}"))
            checked = None
        diagnostics = [] if checked is None else [_diagnostic(checked, finding) for finding in checked.findings]
        document = self.document(uri)
        version = None if document is None else document.version
        self.text_document_publish_diagnostics(lsp.PublishDiagnosticsParams(uri, diagnostics, version))


def create() -> Server:
    """Create a server with all its features."""
    server = Server()

    @server.feature(lsp.TEXT_DOCUMENT_DID_OPEN)
    def opened(params: lsp.DidOpenTextDocumentParams) -> None:
        server.check_project(params.text_document.uri)
        server.publish(params.text_document.uri)

    @server.feature(lsp.TEXT_DOCUMENT_DID_SAVE)
    def saved(params: lsp.DidSaveTextDocumentParams) -> None:
        server.check_project(params.text_document.uri)
        server.publish(params.text_document.uri)

    @server.feature(lsp.TEXT_DOCUMENT_DID_CHANGE)
    async def changed(params: lsp.DidChangeTextDocumentParams) -> None:
        uri, version = params.text_document.uri, params.text_document.version
        await asyncio.sleep(_DELAY)
        # Check after the last of several changes only, and not if the document has been closed.
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
        checked = _check_or_none(server, params.text_document.uri)
        return [] if checked is None else list(_actions(checked, params))

    @server.feature(lsp.TEXT_DOCUMENT_HOVER)
    def hover(params: lsp.HoverParams) -> lsp.Hover | None:
        checked = _check_or_none(server, params.text_document.uri)
        return None if checked is None else _hover(checked, params.position)

    del opened, saved, changed, closed, actions, hover
    return server


def _check_or_none(server: Server, uri: str) -> _CheckedDocument | None:
    try:
        return server.check(uri)
    except BadConfig:
        # Shown when the diagnostics were sent.
        return None


def _diagnostic(document: _CheckedDocument, finding: Diagnostic) -> lsp.Diagnostic:
    return lsp.Diagnostic(
        range=document.range(finding),
        message=finding.message,
        severity=_SEVERITIES[finding.severity],
        code=finding.code,
        source="dropkit",
    )


def _actions(document: _CheckedDocument, params: lsp.CodeActionParams) -> Iterator[lsp.CodeAction]:
    if _asked_for(lsp.CodeActionKind.QuickFix, params):
        for finding in document.findings:
            range_ = document.range(finding)
            is_meant = range_.start <= params.range.end and params.range.start <= range_.end
            if finding.fix is not None and is_meant and document.fixable([finding]):
                yield _quick_fix(document, finding, finding.fix)
    if _asked_for(_FIX_ALL, params):
        safe = (finding for finding in document.findings if finding.fix is not None and finding.fix.safe)
        if fixable := document.fixable(safe):
            title = "Apply all safe dropkit fixes"
            yield lsp.CodeAction(title, kind=_FIX_ALL, edit=document.workspace_edit(fixable))


def _quick_fix(document: _CheckedDocument, finding: Diagnostic, fix: Fix) -> lsp.CodeAction:
    return lsp.CodeAction(
        title=f"{finding.code}: {fix.title}{'' if fix.safe else ' (unsafe)'}",
        kind=lsp.CodeActionKind.QuickFix,
        diagnostics=[_diagnostic(document, finding)],
        is_preferred=fix.safe,
        edit=document.workspace_edit([finding]),
    )


def _asked_for(kind: str, params: lsp.CodeActionParams) -> bool:
    """Whether the client wants actions of this kind: it may name kinds, which include their sub-kinds."""
    only = params.context.only
    return only is None or any(kind == wanted or kind.startswith(f"{wanted}.") for wanted in only)


def _hover(document: _CheckedDocument, position: lsp.Position) -> lsp.Hover | None:
    for finding in document.findings:
        range_ = document.range(finding)
        if range_.start <= position <= range_.end:
            content = lsp.MarkupContent(lsp.MarkupKind.Markdown, page(_RULES[finding.code]))
            return lsp.Hover(content, range_)
    return None
