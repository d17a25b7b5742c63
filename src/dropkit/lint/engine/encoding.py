"""Encode source that an editor or another linter holds as a string."""

from __future__ import annotations

import io
import tokenize


def as_bytes(source: str) -> bytes:
    """Encode `source` as its coding comment says; as UTF-8 if there is none, or if that fails."""
    utf8 = source.encode(errors="replace")
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(utf8).readline)
        return utf8 if encoding in ("utf-8", "utf-8-sig") else source.encode(encoding)
    except (SyntaxError, UnicodeError, LookupError):
        return utf8
