"""`dropkit mc`: what it refuses, and packages that are missing."""

import inspect
import re
import subprocess
import sys

import numpy
import pytest
import torch
from helpers.mc_command import ERROR, NO_WEIGHTS, X, Y, output, refusal, run
from torch import nn

from dropkit import mc
from dropkit.cli.mc import command


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["net"], "MODEL must be FILE.py:NAME, package.module:NAME or .pt, .pth or .ckpt, got 'net'"),
        (["net.bin"], "Invalid value for MODEL: file not found: net.bin"),
        (["there.bin"], "MODEL must be FILE.py:NAME, package.module:NAME or .pt, .pth or .ckpt, got 'there.bin'"),
        (["sub/net:make"], "Invalid value for MODEL: file not found: sub/net"),
        (["net.py:misses_a_file"], "net.py:misses_a_file could not be loaded: file not found: weights.bin"),
        (["there.safetensors"], "there.safetensors holds weights and no module: give FILE.py:NAME --weights there."),
        (["none.pt"], "Invalid value for MODEL: file not found: none.pt"),
        (["none.py:net"], "Invalid value for MODEL: file not found: none.py"),
        (["net.py:nett"], "net.py has no nett; it has Broken,"),
        (["net.py:x"], "net.py:x must be a module or make one, got Tensor"),
        (["net.py:inputs"], "MODEL must be or make a torch.nn.Module, got Tensor"),
        (["net.py:seeded"], "net.py:seeded could not be loaded: TypeError: seeded() missing 1"),
        (["state.pt"], "state.pt holds weights and no module: give FILE.py:NAME --weights state.pt"),
        (["tensor.pt"], "MODEL must be or make a torch.nn.Module, got Tensor"),
        (["junk.pt"], "junk.pt could not be loaded: "),
        (["empty.pt"], "empty.pt could not be loaded: EOFError"),
        (["junk.pt", "--trust"], "junk.pt could not be loaded: UnpicklingError: "),
        (["script.pt"], "script.pt is scripted, and its dropout cannot be seen: give FILE.py:NAME"),
        (["net.py:net", "--weights", "none.pt"], "Invalid value for --weights: file not found: none.pt"),
        (
            ["net.py:net", "--weights", "state.pt"],
            "missing: 0.weight, 0.bias, 3.weight, ... (4 in all); unexpected: weight",
        ),
        (["net.py:net", "--weights", "tensor.pt"], "must hold a state dict, names with tensors, got Tensor"),
        (
            ["net.py:net", "--weights", "numbers.pt"],
            "--weights does not fit the model: missing: 0.weight, 0.bias, 3.weight, ",
        ),
        (
            ["net.py:net", "--weights", "whole.pt"],
            "whole.pt holds a whole module or other objects; loading it runs code",
        ),
        (["net.py:net", "--weights", "net.py"], "must be .pt, .pth, .ckpt, .bin, .tar or .safetensors, got 'net.py'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@pytest.mark.filterwarnings("ignore:`torch.jit.*` is deprecated")
def test_a_wrong_model_is_refused(folder, words, message):
    """The line names what was typed and what is wanted."""
    torch.save(nn.Linear(2, 2).state_dict(), "state.pt")
    torch.save(torch.zeros(2), "tensor.pt")
    torch.save({1: torch.zeros(2)}, "numbers.pt")
    torch.save(nn.Linear(2, 2), "whole.pt")
    torch.jit.script(nn.Linear(4, 3)).save("script.pt")
    (folder / "junk.pt").write_text("hello there")
    for name in ("empty.pt", "there.bin", "there.safetensors"):
        (folder / name).touch()

    line = refusal(*words, "--data", "net.py:inputs")

    assert message in line


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("none.npy", "file not found: none.npy"),
        ("x.csv", "file not found: x.csv"),
        ("net.py", "must be FILE.py:NAME or .npy, .npz, .pt, .pth or .ckpt, got 'net.py'"),
        ("net.py:nothing", "net.py has no nothing; it has "),
        ("net.py:fails", "net.py:fails could not be loaded: KeyError: 'no such data'"),
        ("junk.npy", "must hold numbers, got 'junk.npy': ValueError: the magic string is not correct"),
        ("empty.npy", "must hold numbers, got 'empty.npy': ValueError: EOF"),
        ("junk.npz", "must hold numbers, got 'junk.npz': BadZipFile"),
        (
            "nothing.npz",
            "must hold x and, if it is known, y, or the model's arguments by name (input), got none besides y",
        ),
        ("only_y.npz", "by name (input), got none besides y"),
        ("keras.npz", "by name (input), got x_train, y_train, x_test, ... (4 in all)"),
        ("objects.npy", "must hold numbers, got 'objects.npy': it holds objects, or is damaged"),
        ("words.npy", "can't convert np.ndarray of type numpy.str_"),
        ("objects.pt", "must hold numbers, got 'objects.pt': it holds objects, or is damaged"),
        ("y.pt", "by name (input), got none besides y"),
        ("net.py:scalar", "inputs must hold a tensor with a batch dimension, got Tensor"),
        ("net.py:empty", "inputs must be at least one, got none"),
        ("net.py:uneven", "--data must yield labels of one shape: "),
        ("narrow.npy", "the model could not be run with inputs of shape (12, 3): RuntimeError: mat1 and mat2"),
        ("masked.npz", "by name (input), got x, mask"),
    ],
)
def test_wrong_data_is_refused(folder, data, message):
    """For any contents of a file or result of a function there is one line and no traceback."""
    (folder / "junk.npy").write_text("hello there")
    (folder / "junk.npz").write_bytes(b"PK\x03\x04 hello there")
    (folder / "empty.npy").touch()
    numpy.savez(folder / "nothing.npz")
    numpy.save(folder / "objects.npy", numpy.array([{}]), allow_pickle=True)
    numpy.save(folder / "words.npy", numpy.array(["a", "b"]))
    numpy.save(folder / "narrow.npy", X[:, :3].numpy())
    numpy.savez(folder / "masked.npz", x=X.numpy(), mask=X[:, :1].numpy())
    numpy.savez(folder / "only_y.npz", y=Y.numpy())
    numpy.savez(folder / "keras.npz", x_train=X.numpy(), y_train=Y.numpy(), x_test=X.numpy(), y_test=Y.numpy())
    torch.save({"x": numpy.zeros(3)}, folder / "objects.pt")
    torch.save({"y": Y}, folder / "y.pt")

    line = refusal("net.py:net", "--data", data)

    assert message in line
    assert line.count("\n") == 0


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (Y[:11], "Invalid value for --labels: labels must be one for each of 12 inputs, got shape (11,)"),
        (torch.tensor(1), "labels must be one for each of 12 inputs, got shape ()"),
        (Y.float(), "labels must be integers, got torch.float32; for real values give --task regression"),
        (
            Y + 1,
            "cannot be compared with the truth: y must be in [0, 3), or -100 for labels to ignore, got 3",
        ),
        (
            Y - 1,
            "cannot be compared with the truth: y must be in [0, 3), or -100 for labels to ignore, got -1",
        ),
        (Y.view(6, 2), "one for each of 12 inputs, got shape (6, 2)"),
        (Y[:, None].repeat(1, 2), "cannot be compared with the truth: y must be of shape (12,), got (12, 2)"),
        (["a"] * 12, "labels must be numbers: "),
        ([[1], [1, 2]], "labels must be numbers: "),
        ({"x": X, "z": Y}, "Invalid value for --labels: must hold y, got x, z"),
    ],
    ids=["short", "scalar", "float", "too large", "too small", "folded", "two", "words", "uneven", "named"],
)
def test_wrong_labels_are_refused(folder, labels, message):
    """Floats are not rounded to classes, and every class must exist in the prediction."""
    torch.save(labels, folder / "labels.pt")

    assert message in refusal("net.py:net", "--data", "net.py:inputs", "--labels", "labels.pt")


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (X[:, :2], [], "cannot be compared with the truth: y must be of shape (12, 1), got (12, 2)"),
        (X[:11, 0], [], "labels must be one for each of 12 inputs, got shape (11,)"),
        (X[:, 0] / 0, [], "Invalid value for --labels: labels must be finite numbers, got NaN or infinity"),
    ],
    ids=["wide", "short", "not finite"],
)
def test_wrong_values_are_refused(folder, labels, options, message):
    """A wrong shape and NaN are refused before the report."""
    torch.save(labels, folder / "labels.pt")
    words = "--data", "net.py:inputs", "--labels", "labels.pt", "--task", "regression"

    assert message in refusal("net.py:value", *words, *options)


def test_a_prediction_of_nan_is_not_compared(folder):
    """The label of NaN would be class 0."""
    line = refusal("net.py:Broken", "--data", "net.py:pair")

    assert line == (
        "the prediction cannot be compared with the truth: the model returned NaN or infinity for 1 of 12 inputs"
    )


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("plain", [], "no dropout is active: the model has none that can be seen, or its rates are 0"),
        ("plain", [], "on the command line: dropkit audit"),
        ("Raises", [], "the model could not be run with inputs of shape (12, 4): KeyError: 'no such thing'"),
        ("Leaves", [], "the model could not be run with inputs of shape (12, 4): SystemExit: 0"),
        ("net", ["--class-dim", "5"], "class_dim must be a dimension of the output after the first, of 2, got 5"),
        (
            "net",
            ["--outputs", "probabilities"],
            'outputs must be "logits" where they are no probabilities, got sums of ',
        ),
        ("probabilities", [], 'outputs must be "probabilities" where the model returns them'),
        ("sigmoids", [], "give --task multilabel and --outputs probabilities if several labels may be true"),
        ("sigmoids", ["--outputs", "probabilities"], "give --task multilabel and --outputs probabilities if several"),
    ],
)
def test_a_model_that_cannot_be_sampled_is_refused(folder, model, options, message):
    """The line names the shape of the inputs, the error and what to do."""
    assert message in refusal(f"net.py:{model}", "--data", "net.py:inputs", *options)


@pytest.mark.parametrize("options", [[], ["--outputs", "probabilities"]])
def test_an_error_names_options_of_the_command_line(folder, options):
    """Arguments of Python that have no option are not mentioned."""
    line = refusal("net.py:sigmoids", "--data", "net.py:inputs", *options)

    assert "output=" not in line
    assert "task=" not in line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--samples 0", "--samples"),
        ("--batch-size 0", "--batch-size"),
        ("--top -1", "--top"),
        ("--target-standard-error 0", "'--target-standard-error': must be larger than 0 and finite, got 0.0"),
        ("--target-standard-error nan", "'--target-standard-error': must be larger than 0 and finite, got nan"),
        (
            "--target-standard-error 0.1 --plan stratified",
            "--target-standard-error needs --plan iid: stratified samples end together",
        ),
        ("--tau 0 --task regression", "'--tau': must be larger than 0 and finite, got 0.0"),
        ("--tau inf --task regression", "'--tau': must be larger than 0 and finite, got inf"),
        ("--tau 1", "--tau has no meaning with --task classification"),
        (
            "--task regression --outputs logits",
            "--outputs must be values, mean_log_variance, mean_variance, mean_std with --task regression, got logits",
        ),
        ("--task regression --class-dim -1", "--class-dim has no meaning with --task regression"),
        ("--seed 18446744073709551616", "'--seed': it must fit 64 bits, in [-2**63, 2**64), got 18446744073709551616"),
        ("--html no/page.html", "Invalid value for --html: must lie in a folder that exists, got 'no/page.html'"),
        ("--jsonl no/x.jsonl", "Invalid value for --jsonl: must lie in a folder that exists, got 'no/x.jsonl'"),
        ("--html .", "is a directory"),
        ("--jsonl .", "is a directory"),
    ],
)
def test_options_are_refused_before_anything_is_run(folder, words, message):
    """An error in the options alone is found without the model, and no minutes of sampling are lost."""
    assert message in refusal("none.py:net", "--data", "none.npy", *words.split())


def test_a_file_that_cannot_be_written_is_named(folder):
    """A full disk gives a line and exit code 2."""
    result = run("net.py:net", "--data", "net.py:inputs", "--jsonl", "/dev/full")

    assert (result.exit_code, result.stderr) == (
        2,
        f"{NO_WEIGHTS}Error: /dev/full could not be written: No space left on device\n",
    )


@pytest.mark.parametrize(
    ("package", "words"),
    [
        ("matplotlib", "net.py:net --data net.py:pair --html page.html"),
        ("jinja2", "net.py:net --data net.py:pair --html page.html"),
        ("scipy", "net.py:value --data net.py:values --task regression"),
        ("numpy", "tiny.py:model --data x.npy"),
    ],
)
def test_a_missing_package_is_named_in_one_line(folder, monkeypatch, package, words):
    """The line says how to install it, and nothing is run before."""
    numpy.save(folder / "x.npy", X.numpy())
    (folder / "tiny.py").write_text("from torch import nn\nmodel = nn.Dropout()\n")
    monkeypatch.setitem(sys.modules, package, None)

    line = refusal(*words.split())

    assert re.fullmatch(rf"[^\n]+ needs {package}: pip install \"dropkit\[mc\]\"", line)


def test_a_table_needs_no_more_than_torch(folder):
    """The command works in a process without the packages for pages and for fitting tau."""
    missing = "import sys; sys.modules.update(dict.fromkeys(['matplotlib', 'jinja2', 'scipy', 'torchmetrics']));"
    code = f"{missing} from dropkit.cli import main; main()"
    words = [sys.executable, "-c", code, "mc", "net.py:net", "--data", "net.py:pair"]

    process = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)

    assert (process.returncode, process.stderr) == (0, NO_WEIGHTS)
    assert ERROR in process.stdout


def test_help_names_every_option_and_default():
    """The help shows each option, what it does and its default."""
    text = " ".join(output("--help").split())

    for name in inspect.signature(mc.predict).parameters.keys() & {parameter.name for parameter in command.params}:
        assert f"--{name.replace('_', '-')} " in text or name == "model"
    assert all(parameter.help for parameter in command.params if parameter.name not in ("model", "color", "help"))
    for default in ("50", "classification", "iid", "logits", "0", "256", "10", "auto"):
        assert f"[default: {default}" in text
