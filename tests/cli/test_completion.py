"""Help and shell completion of every command need no torch, and words that are near a name are recognised."""

import sys

import pytest
from click.shell_completion import BashComplete, FishComplete, ZshComplete
from click.testing import CliRunner

from dropkit.cli import COMMANDS, _group
from dropkit.mc.selection import MOST_NUMBERS
from dropkit.rules import RULES
from dropkit.studies.kinds import KINDS
from dropkit.studies.readers import READERS


@pytest.fixture
def without_torch(monkeypatch):
    """Refuse to import torch, and forget what this process has imported of the command line."""
    for name in [name for name in sys.modules if name.startswith("dropkit.cli.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)


def completions(words, incomplete, shell=BashComplete):
    found = shell(_group, {}, "dropkit", "_DROPKIT_COMPLETE").get_completions(words, incomplete)
    return [item.value for item in found]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_and_options_of_a_command_need_no_torch(command, without_torch):
    """Each command explains itself, and completes its options."""
    result = CliRunner().invoke(_group, [command, "--help"])

    assert (result.exit_code, result.output.startswith("Usage:")) == (0, True), result.output
    assert "--help" in completions([command], "--")


@pytest.mark.parametrize("shell", [BashComplete, ZshComplete, FishComplete])
def test_commands_are_completed_in_every_shell(shell):
    """By their first letters; none of them is imported for that."""
    assert completions([], "", shell) == list(COMMANDS)
    assert completions([], "s", shell) == ["server", "study"]


@pytest.mark.parametrize(
    ("words", "incomplete", "wanted"),
    [
        (["check"], "--unsafe", ["--unsafe-fixes"]),
        (["check", "--severity"], "w", ["warning"]),
        (["explain"], "drp101", ["DRP101"]),
        (["check", "--select"], "drp101", ["DRP101"]),
        (["check", "--ignore"], "DRP102,DRP101", ["DRP102,DRP101"]),
        (["audit", "--ignore"], "DRP101", ["DRP101"]),
        (["mc", "--task"], "", ["classification", "multilabel", "regression"]),
        (["study"], "--kin", ["--kinds"]),
    ],
)
def test_options_and_values_are_completed(words, incomplete, wanted, without_torch):
    """Names of options, the values that an option may have, and codes of rules."""
    assert completions(words, incomplete) == wanted


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["chek"], "did you mean check?"),
        (["check", "--fx"], "--fix"),
        (["explain", "DRP1001"], "did you mean DRP101?"),
    ],
)
def test_a_misspelled_word_is_recognised(words, hint):
    """The error names what was meant."""
    result = CliRunner().invoke(_group, words)

    assert result.exit_code == 2
    assert hint in result.output


def test_help_states_what_the_code_has():
    """Names and numbers that the help repeats, because it cannot import them."""
    study = " ".join(CliRunner().invoke(_group, ["study", "--help"]).output.split())
    mc = " ".join(CliRunner().invoke(_group, ["mc", "--help"]).output.split())
    from dropkit.cli.actions import mc_json

    assert f"{', '.join(KINDS)}, or layers" in study
    assert f"{', '.join(reader.form for reader in READERS.values())}; or" in study
    assert f"at most {MOST_NUMBERS} numbers" in mc
    assert f"more than {mc_json.MOST_NUMBERS} numbers" in mc
    assert len(RULES) == len(completions(["explain"], ""))
