"""The language server, over standard input and output as an editor uses it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.editor import Editor

from dropkit.rules import RULES

SOURCE = """import torch.nn.functional as F
from torch import nn


class Classifier(nn.Module):
    def forward(self, x):
        y = "\N{SLIGHTLY SMILING FACE}"; x = F.dropout(x)
        return F.dropout(-x, .5), y
"""


FIXED = SOURCE.replace("F.dropout(x)", "F.dropout(x, training=self.training)").replace(
    ".5", ".5, training=self.training"
)


CLEAN = "import torch.nn.functional as F\n"


UNSAFE = next(rule for rule in RULES if rule.fix and not rule.fix_is_safe)


UNUSED = next(rule for rule in RULES if rule.name == "dropout-never-applied")


USER = """from model import Classifier


class User(Classifier):
    def forward(self, x):
        return self.dropout(x)
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool.dropkit]\n")
    return tmp_path


@pytest.fixture
def editor(folder):
    with Editor(folder) as editor:
        yield editor


def places(published):
    return [
        (diagnostic["code"], *diagnostic["range"]["start"].values(), *diagnostic["range"]["end"].values())
        for diagnostic in published["diagnostics"]
    ]


def applied(source, action, uri):
    """`source` after the action's edits, whose columns count UTF-16 units."""
    lines = source.splitlines(keepends=True)
    starts = [sum(len(line.encode("utf-16-le")) for line in lines[:index]) for index in range(len(lines) + 1)]
    data = source.encode("utf-16-le")

    def offset(position):
        return starts[position["line"]] + 2 * position["character"]

    for edit in sorted(action["edit"]["changes"][uri], key=lambda edit: -offset(edit["range"]["start"])):
        start, end = offset(edit["range"]["start"]), offset(edit["range"]["end"])
        data = data[:start] + edit["newText"].encode("utf-16-le") + data[end:]
    return data.decode("utf-16-le")


def test_opening_shows_what_is_found(editor):
    """Positions from 0 in UTF-16 units, where the smiling face is two; then the rule's code and severity."""
    published = editor.open(SOURCE)

    assert (published["uri"], published["version"]) == (editor.uri(), 1)
    assert places(published) == [("DRP101", 6, 22, 6, 34), ("DRP101", 7, 15, 7, 32)]
    assert {diagnostic["severity"] for diagnostic in published["diagnostics"]} == {1}
    assert {diagnostic["source"] for diagnostic in published["diagnostics"]} == {"dropkit"}


@pytest.mark.parametrize(("encoding", "column"), [("utf-8", 24), ("utf-16", 22), ("utf-32", 21)])
def test_columns_are_counted_as_the_client_does(folder, encoding, column):
    with Editor(folder, [encoding]) as editor:
        published = editor.open(SOURCE)

    assert editor.capabilities["positionEncoding"] == encoding
    assert published["diagnostics"][0]["range"]["start"] == {"line": 6, "character": column}


def test_of_changes_in_a_row_the_last_is_checked(editor):
    """Typing does not start a check for each letter."""
    editor.open(CLEAN)

    for version, source in [(2, CLEAN + "F."), (3, CLEAN), (4, SOURCE)]:
        editor.change(source, version)
    published = editor.wait_for("textDocument/publishDiagnostics")

    assert published["version"] == 4
    assert len(published["diagnostics"]) == 2


def test_closing_takes_the_findings_away(editor):
    """A change just before it does not bring them back."""
    editor.open(SOURCE)

    editor.change(SOURCE + "\n", 2)
    editor.tell("textDocument/didClose", {"textDocument": {"uri": editor.uri()}})

    assert editor.wait_for("textDocument/publishDiagnostics")["diagnostics"] == []
    assert editor.open(CLEAN, "other.py")["uri"] == editor.uri("other.py")


def test_a_file_that_does_not_parse_has_no_findings(editor):
    assert editor.open(SOURCE + "def\n")["diagnostics"] == []


def test_a_quick_fix_fixes_one_finding(editor):
    """The one under the cursor; a safe one is preferred."""
    editor.open(SOURCE)

    (action,) = editor.actions((6, 25), (6, 25), ["quickfix"])

    assert (action["title"], action["kind"]) == ("DRP101: Pass training=self.training", "quickfix")
    assert action["isPreferred"] is True
    assert [diagnostic["code"] for diagnostic in action["diagnostics"]] == ["DRP101"]
    assert applied(SOURCE, action, editor.uri()).splitlines()[6:] == [FIXED.splitlines()[6], SOURCE.splitlines()[7]]


@pytest.mark.parametrize("only", [["source.fixAll.dropkit"], ["source.fixAll"], ["source"]])
def test_fix_all_applies_all_safe_fixes(editor, only):
    editor.open(SOURCE)

    (action,) = editor.actions(only=only)

    assert action["kind"] == "source.fixAll.dropkit"
    assert applied(SOURCE, action, editor.uri()) == FIXED


def test_kinds_that_are_not_asked_for_are_not_given(editor):
    editor.open(SOURCE)

    assert editor.actions(only=["refactor"]) == []
    assert [action["kind"] for action in editor.actions()] == ["quickfix", "quickfix", "source.fixAll.dropkit"]


def test_unsafe_fixes_say_so_and_are_not_part_of_fix_all(folder):
    """They are offered one by one, and never preferred."""
    (folder / "pyproject.toml").write_text(f'[tool.dropkit]\nselect = ["{UNSAFE.code}"]\nseverity = "info"\n')
    with Editor(folder) as editor:
        editor.open(UNSAFE.examples[0].bad)
        actions = editor.actions()

    assert actions
    for action in actions:
        assert (action["kind"], action["isPreferred"]) == ("quickfix", False)
        assert action["title"].endswith(" (unsafe)")


def test_comments_and_settings_hold(folder):
    """Comments and settings silence the editor as they do `dropkit check`; excluded files and notebooks are skipped."""
    (folder / "pyproject.toml").write_text('[tool.dropkit.per-file-ignores]\n"tests/*" = ["DRP101"]\n')
    with Editor(folder) as editor:
        silenced = SOURCE.replace("F.dropout(x)\n", "F.dropout(x)  # dropkit: ignore[DRP101]\n")

        assert places(editor.open(silenced)) == [("DRP101", 7, 15, 7, 32)]
        assert places(editor.open(SOURCE, "tests/model.py")) == []
        assert places(editor.open(SOURCE, "build/model.py")) == []
        assert places(editor.open(SOURCE, "model.ipynb")) == []


def test_a_bad_setting_is_shown(folder):
    """The server continues, and reports findings again once the setting is corrected."""
    (folder / "pyproject.toml").write_text("[tool.dropkit]\nselct = []\n")
    with Editor(folder) as editor:
        assert editor.open(SOURCE)["diagnostics"] == []
        assert "selct is not a setting; did you mean select?" in editor.wait_for("window/showMessage")["message"]
        assert editor.actions() == []

        (folder / "pyproject.toml").write_text("[tool.dropkit]\n")
        editor.change(SOURCE, 2)

        assert len(editor.wait_for("textDocument/publishDiagnostics")["diagnostics"]) == 2


def test_pointing_at_a_finding_shows_the_rule(editor):
    editor.open(SOURCE)

    def pointed(line, character):
        position = {"line": line, "character": character}
        return editor.ask("textDocument/hover", {"textDocument": {"uri": editor.uri()}, "position": position})

    assert pointed(0, 0) is None
    assert pointed(7, 20)["contents"]["value"].startswith("# DRP101: functional-dropout-ignores-mode\n")


def test_what_another_file_refutes_is_not_shown(editor):
    """A layer that a subclass in another file applies; while typing, the answer of the last save holds."""
    base, user = UNUSED.examples[0].bad, USER
    user_file = Path(editor.folder, "user.py")
    saved = {"textDocument": {"uri": editor.uri()}}

    assert [code for code, *_ in places(editor.open(base))] == [UNUSED.code]
    user_file.write_text(user)
    editor.tell("textDocument/didSave", saved)
    assert places(editor.wait_for("textDocument/publishDiagnostics")) == []
    editor.change(base + "\n", 2)
    assert places(editor.wait_for("textDocument/publishDiagnostics")) == []
    user_file.unlink()
    editor.tell("textDocument/didSave", saved)
    assert [code for code, *_ in places(editor.wait_for("textDocument/publishDiagnostics"))] == [UNUSED.code]


def test_without_pygls_the_error_says_what_to_install():
    """One line and exit code 2; torch is not asked for."""
    code = "import sys; sys.modules['pygls'] = sys.modules['lsprotocol'] = None; sys.argv[1:] = ['server'];"
    code += "from dropkit.cli import main; main()"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert done.stderr == 'Error: dropkit server needs pygls: pip install "dropkit[editor]"\n'


def test_the_server_needs_no_torch():
    code = "import sys, dropkit.lint.engine.language_server; print('torch' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"


ODD_ADDRESSES = [
    "", "x", "http://example.com/a.py", "git:/a.py?ref=1", "file:///a%00b.py", "file:///nowhere/a.py", "\ud800", 3,
    None, "file://host/a.py", "vscode-notebook-cell:/a.ipynb#x", "file:///%ff.py", "file:///" + "a" * 5000 + ".py",
]  # fmt: skip


def request(method, uri, line=0, character=0):
    """The parameters of a request about a place."""
    place = {"line": line, "character": character}
    about = {"textDocument": {"uri": uri}}
    if method.endswith("hover"):
        return about | {"position": place}
    return about | {"range": {"start": place, "end": place}, "context": {"diagnostics": [], "only": ["quickfix"]}}


REQUESTS = ("textDocument/hover", "textDocument/codeAction")


def test_addresses_of_any_kind_get_an_answer(editor):
    """The document need not be open, and the server answers the next request."""
    fifo = editor.folder / "fifo.py"
    os.mkfifo(fifo)
    for uri in (*ODD_ADDRESSES, fifo.as_uri()):
        document = {"uri": uri, "languageId": "python", "version": 1, "text": "x = 1\n"}
        assert [editor.ask(method, request(method, uri)) for method in REQUESTS] == [None, []]
        editor.tell("textDocument/didOpen", {"textDocument": document})
        assert editor.wait_for("textDocument/publishDiagnostics")["diagnostics"] == []
        editor.tell("textDocument/didSave", {"textDocument": {"uri": uri}})
        assert [editor.ask(method, request(method, uri)) for method in REQUESTS] == [None, []]
        editor.tell("textDocument/didClose", {"textDocument": {"uri": uri}})
        assert [editor.wait_for("textDocument/publishDiagnostics")["diagnostics"] for _ in range(2)] == [[], []]

    assert len(editor.open(SOURCE)["diagnostics"]) == 2
    assert not [message for message in editor.heard if message["method"] == "window/showMessage"]


def test_an_unsaved_document_is_checked(editor):
    document = {"uri": "untitled:Untitled-1", "languageId": "python", "version": 1, "text": SOURCE}

    editor.tell("textDocument/didOpen", {"textDocument": document})

    assert len(editor.wait_for("textDocument/publishDiagnostics")["diagnostics"]) == 2


def test_changes_of_a_file_with_an_odd_name_are_checked(editor):
    """In its URI a space is encoded, which the server decodes."""
    editor.open(CLEAN, "my model.py")

    editor.change(SOURCE, 2, "my model.py")

    assert len(editor.wait_for("textDocument/publishDiagnostics")["diagnostics"]) == 2


def test_a_document_that_does_not_parse_gets_an_answer(editor):
    """Nothing is found in it, and the next one is checked."""
    for version, source in enumerate(["def f(:\n", "\0", "(" * 100_000, "x = " + "9" * 5000, "\ud800", "\r", ""]):
        text = f"# torch dropout\n{source}"
        document = {"uri": editor.uri(), "languageId": "python", "version": version, "text": text}
        editor.tell("textDocument/didOpen", {"textDocument": document})

        assert editor.wait_for("textDocument/publishDiagnostics")["diagnostics"] == []
        assert [editor.ask(method, request(method, editor.uri())) for method in REQUESTS] == [None, []]
    assert len(editor.open(SOURCE)["diagnostics"]) == 2


def test_half_a_surrogate_pair_hides_no_finding(editor):
    """In a comment, in a string, on the line of a finding or before it."""
    line = SOURCE.splitlines()[6]
    text = '# \ud800\nx = "\udc00"\n' + SOURCE.replace(line, f"{line}  # \udfff")
    document = {"uri": editor.uri(), "languageId": "python", "version": 1, "text": text}

    editor.tell("textDocument/didOpen", {"textDocument": document})

    assert len(editor.wait_for("textDocument/publishDiagnostics")["diagnostics"]) == 2


def refused(editor, **message):
    """The error that a message gets."""
    editor.send(json.dumps({"jsonrpc": "2.0"} | message).encode())
    answer = editor.read()
    assert answer["id"] == message.get("id")
    return answer["error"]["code"]


def test_places_outside_of_the_document_get_an_answer(editor):
    """The answer is empty; a malformed position is an error of this request."""
    editor.open(SOURCE)

    for method in REQUESTS:
        assert not editor.ask(method, request(method, editor.uri(), 0, 2**31 - 1))
        assert not editor.ask("textDocument/hover", request("textDocument/hover", editor.uri(), 10**9))
        for number, place in enumerate([(-1, 0), (0, -1), (2**31, 0), (10**30, 0), ("a", 0), (None, None)]):
            params = request(method, editor.uri(), *place)
            assert refused(editor, id=f"{method} {number}", method=method, params=params) in (-32602, -32603)
    assert editor.ask("textDocument/hover", request("textDocument/hover", editor.uri(), 7, 20)) is not None


MALFORMED = {
    b"{": -32700, b"\xff\xfe": -32700, b"[" * 100_000: -32700, b"9" * 10_000: -32700, b"[]": -32600, b"3": -32600,
    b"null": -32600, b'"x"': -32600, b"{}": -32600, b'{"id": 1, "method": "textDocument/hover"}': -32600,
}  # fmt: skip


def test_a_body_that_is_no_message_gets_an_error(editor):
    """The error has no id, as JSON-RPC requires; the next message is read."""
    editor.open(SOURCE)
    for body, code in MALFORMED.items():
        editor.send(body)

        answer = editor.read()

        assert (answer["id"], answer["error"]["code"]) == (None, code)
    assert refused(editor, id=99, method="textDocument/hover", params=3) == -32602
    for number, method in enumerate([3, None, [], {}], 100):
        assert refused(editor, id=number, method=method) == -32600
    for number, version in enumerate(["1.0", 2.0, None, [], {}], 200):
        assert refused(editor, jsonrpc=version, id=number, method="textDocument/hover") == -32600
    assert editor.ask("textDocument/hover", request("textDocument/hover", editor.uri(), 7, 20)) is not None
