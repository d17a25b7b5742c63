"""Answers to an editor's malformed messages: an error, where pygls alone would log them and let the editor wait.

Source: jsonrpc.org, "JSON-RPC 2.0 Specification", section 5.1. Needs pygls.
"""

from __future__ import annotations

from typing import Any

from pygls.exceptions import JsonRpcException, JsonRpcInvalidRequest, JsonRpcParseError
from pygls.protocol import LanguageServerProtocol

# What becomes of a message that was answered while it was read.
_ANSWERED = object()


class Protocol(LanguageServerProtocol):
    """The protocol of pygls, with an error for every request that is not one."""

    def structure_message(self, data: dict[str, Any]) -> Any:
        """Read one JSON object; answer a request that cannot be read."""
        if "jsonrpc" not in data:
            return data
        if data["jsonrpc"] != self.VERSION or not isinstance(data.get("method", ""), str):
            self.refuse(JsonRpcInvalidRequest(), data.get("id"))
            return _ANSWERED
        try:
            return super().structure_message(data)
        except JsonRpcException as error:
            if "method" in data and "id" in data:
                self.refuse(error, data["id"])
            return _ANSWERED

    def handle_message(self, message: Any) -> None:
        """Handle what `structure_message` made."""
        if hasattr(message, "jsonrpc"):
            super().handle_message(message)
        elif message is not _ANSWERED:
            # JSON, but no message: a list, a number, an object without a version.
            self.refuse(JsonRpcInvalidRequest())

    def refuse(self, error: JsonRpcException, identifier: Any = None) -> None:
        """Answer with an error; to no message in particular where its identifier could not be read, or is none."""
        identifier = identifier if isinstance(identifier, (str, int)) else None
        about = {"code": error.code, "message": error.message}
        self._send_data({"jsonrpc": self.VERSION, "id": identifier, "error": about})

    def refuse_unreadable(self, error: Exception) -> bool:
        """Answer a body that is no JSON; false where `error` is about something else."""
        # Of bytes that are no text, brackets without end, and what json says of all else.
        if not isinstance(error, (ValueError, RecursionError)):
            return False
        self.refuse(JsonRpcParseError())
        return True
