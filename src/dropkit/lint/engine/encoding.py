"""Source that is at hand as a string, in an editor or in another linter, as the bytes of the file that it is."""

from __future__ import annotations

import io
import tokenize


def as_bytes(source: str) -> bytes:
    """Encode `source` as its coding comment says; as UTF-8 where there is none, or where it cannot be done."""
    utf8 = source.encode(errors="replace")
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(utf8).readline)
        return utf8 if encoding in ("utf-8", "utf-8-sig") else source.encode(encoding)
    except (SyntaxError, UnicodeError, LookupError):
        return utf8
