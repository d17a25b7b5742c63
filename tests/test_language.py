"""The project is written in the terms of its field: words of a private vocabulary do not come back."""

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("src", "csrc", "docs", "examples", "benchmarks", "experiments")
SUFFIXES = {".py", ".pyi", ".md", ".h", ".cpp", ".html", ".css"}

# A pattern of words that must not be used -> the term of the field, or what else to write. Words in names count, too:
# an underscore ends a word.
TERMS = {
    "coins?|toss(es|ed|ing)?": "mask element",
    "mend(s|ed|ing)?": "fix",
    "heirs?": "subclass",
    "strangers?": "out-of-distribution input",
    "grave(r|st|ly)?": "severe",
    "thin(ned|ning|ner)": "pruned",
    "tapes?": "prefix cache",
    "lineage": "method resolution order",
    "draws in (train|eval)\\w*|who draws": "active in, drops",
    "(?<!unless )(?<!unless it is )told|vouch(es|ed)?": "the verb that says what happens",
    "accounts? of|said of": "summary, described by",
    "(is|are|it) let go|takes what comes|comes by|what stands|of which it is": "a sentence with a subject and a verb",
    "for one(, \\w+)* in": "a loop variable that says what it holds",
    "(?<!from math )import floors?|wing of": "import layer, stack",
}
# Files that may use a term, and why.
ALLOWED: dict[tuple[str, str], str] = {
    ("src/dropkit/nn/layer_drop.py", "grave(r|st|ly)?"): "the name of an author",
    ("docs/layers/LayerDrop.md", "grave(r|st|ly)?"): "the name of an author",
}


@cache
def lines() -> list[tuple[str, int, str]]:
    """Return (path, number, text) of every line of code and documentation, without the tests."""
    files = [*ROOT.glob("*.md"), *(file for folder in FOLDERS for file in (ROOT / folder).rglob("*"))]
    return [
        (str(file.relative_to(ROOT)), number, line)
        for file in sorted(files)
        if file.suffix in SUFFIXES
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
    ]


@pytest.mark.parametrize("term", TERMS, ids=list(TERMS.values()))
def test_words_of_a_private_vocabulary_are_not_used(term):
    """No line uses the term, unless its file is listed with a reason."""
    pattern = re.compile(rf"(?<![a-z])({term})(?![a-z])", re.IGNORECASE)

    uses = [
        f"{path}:{number}: {line.strip()}"
        for path, number, line in lines()
        if pattern.search(line) and (path, term) not in ALLOWED
    ]

    assert not uses, f"write: {TERMS[term]}\n" + "\n".join(uses)


def test_every_exception_is_needed():
    """An exception whose file does not use the term any more is removed."""
    unused = [
        (path, term)
        for path, term in ALLOWED
        if not any(path == file and re.search(term, line, re.IGNORECASE) for file, _, line in lines())
    ]

    assert unused == []
