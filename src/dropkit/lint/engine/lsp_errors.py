"""Answer malformed messages of an editor with an error; pygls alone would log them, and the editor would wait.

Source: jsonrpc.org, "JSON-RPC 2.0 Specification", section 5.1. Needs pygls.
"""

from __future__ import annotations

from typing import Any

from pygls.exceptions import JsonRpcException, JsonRpcInvalidRequest, JsonRpcParseError
from pygls.protocol import LanguageServerProtocol

# Returned for a message that was answered while it was read.
_ANSWERED = object()


class Protocol(LanguageServerProtocol):
    """The protocol of pygls, with an error for every malformed request."""

    def structure_message(self, data: dict[str, Any]) -> Any:
        """Read one JSON object; answer a request that cannot be read with an error."""
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
        """Handle a message that `structure_message` returned."""
        if hasattr(message, "jsonrpc"):
            super().handle_message(message)
        elif message is not _ANSWERED:
            # JSON, but not a message: a list, a number, an object without a version.
            self.refuse(JsonRpcInvalidRequest())

    def refuse(self, error: JsonRpcException, identifier: Any = None) -> None:
        """Answer with an error, without an identifier if it could not be read."""
        identifier = identifier if isinstance(identifier, (str, int)) else None
        details = {"code": error.code, "message": error.message}
        self._send_data({"jsonrpc": self.VERSION, "id": identifier, "error": details})

    def refuse_unreadable(self, error: Exception) -> bool:
        """Answer a body that is not JSON; return whether `error` is about that."""
        # Undecodable bytes and bad JSON are ValueErrors; deep nesting is a RecursionError.
        if not isinstance(error, (ValueError, RecursionError)):
            return False
        self.refuse(JsonRpcParseError())
        return True
