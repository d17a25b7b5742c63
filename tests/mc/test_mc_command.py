"""`dropkit mc` as it is typed: what it reads, what it prints and writes, and what it refuses."""

import inspect
import json
import re
import shutil
import subprocess
import sys
from importlib import import_module

import numpy
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from dropkit import mc
from dropkit.cli import mc_summary
from dropkit.cli.mc import command

PROGRAM = """
import numpy
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

x = torch.linspace(-2, 2, 48).view(12, 4)
y = torch.arange(12) % 3


def seeded(module):
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, generator=generator)
    return module


def net(outputs=3):
    return seeded(nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, outputs)))


def value():
    return net(1)


def two():
    return net(2)


def one_logit():
    return nn.Sequential(net(1), nn.Flatten(0))


def probabilities():
    return nn.Sequential(net(), nn.Softmax(1))


def sigmoids():
    return nn.Sequential(net(), nn.Sigmoid())


def tokens():
    return seeded(nn.Sequential(nn.Embedding(9, 8), nn.Dropout(0.5), nn.Linear(8, 5)))


def plain():
    return nn.Linear(4, 3)


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, x, mask):
        return self.net(x) + mask


class Raises(nn.Module):
    def forward(self, x):
        raise KeyError("no such thing")


class Leaves(nn.Module):
    def forward(self, x):
        raise SystemExit(0)


class Loud(Named):
    def forward(self, x):
        print("in the model")
        return self.net(x)


class Broken(Named):
    def forward(self, x):
        return self.net(x).index_fill(0, torch.tensor([0]), float("nan"))


class Wide(Named):
    def forward(self, x):
        return self.net(x).repeat(1, 400)


def inputs(): return x
def array(): return x.double().numpy()
def pair(): return x, y
def array_pair(): return x.double().numpy()[::-1], y.numpy()
def without(): return x, None
def values(): return x, x.sum(1)
def values_of_two(): return x, x[:, :2]
def batches(): return (pair for pair in zip(x.split(5), y.split(5)))
def loader(): return DataLoader(TensorDataset(x, y), batch_size=5)
def last_dropped(): return DataLoader(TensorDataset(x, y), batch_size=5, drop_last=True), y[:10]
def untrue(): return DataLoader(TensorDataset(x, y), batch_size=5), None
def bare(): return DataLoader(x, batch_size=5)
def named(): return {"x": x, "mask": torch.zeros(12, 1), "y": y}
def args(): return (x, torch.zeros(12, 1)), y
def sentences(): return torch.arange(24).view(6, 4) % 9, torch.arange(24).view(6, 4) % 5
def loud():
    print("in the data")
    return x, y
def dataset(): return TensorDataset(x, y)
def uneven(): return iter([(x[:4], y[:4]), (x[4:], y[4:, None])])
def fails(): raise KeyError("no such data")
def empty(): return x[:0]
def scalar(): return torch.tensor(1.0)
"""
X = torch.linspace(-2, 2, 48).view(12, 4)
Y = torch.arange(12) % 3
TRUTH = "error                                 "
UNLOADED = (
    "warning: no --weights given: the weights are those of the model as made; unless what makes it loads some, they "
    "are random, and so are these predictions\n"
)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a program, in which the command is called."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(PROGRAM)
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def done(*arguments):
    """What a call that must not fail printed."""
    result = run(*arguments)
    assert (result.exit_code, result.exception) == (0, None), result.output
    return result.stdout


def refused(*arguments):
    """The one line in which a call says why it could not be done."""
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert isinstance(result.exception, SystemExit)
    return result.stderr.partition("Error: ")[2].rstrip()


def records(*arguments):
    """The lines of JSON of a call, which must be all that it prints."""
    return [json.loads(line, parse_constant=pytest.fail) for line in done(*arguments, "--jsonl", "-").splitlines()]


# What is read


@pytest.mark.parametrize("data", ["inputs", "array", "without", "untrue", "bare"])
def test_data_without_truth_is_predicted_and_not_judged(here, data):
    """A tensor, an array, a pair with None and a loader of inputs all give a table of measures alone."""
    out = done("net.py:net", "--data", f"net.py:{data}")

    assert out.startswith("ClassPrediction(12 inputs, mean (12, 3), 50 samples)\n")
    assert "mutual information" in out
    assert TRUTH not in out


@pytest.mark.parametrize("data", ["pair", "batches", "loader"])
def test_data_with_truth_is_judged_whatever_it_comes_in(here, data):
    """Pairs of tensors, and pairs that a loader or a generator yields, give the same numbers."""
    lines = records("net.py:net", "--data", f"net.py:{data}", "--batch-size", 5)

    assert [line["truth"] for line in lines] == Y.tolist()
    assert lines == records("net.py:net", "--data", "net.py:pair", "--batch-size", 5)
    assert TRUTH in done("net.py:net", "--data", f"net.py:{data}")


def test_the_truth_of_a_loader_that_leaves_inputs_out_is_that_of_the_others(here):
    """How many inputs there are is what came, and not what lies in the data set."""
    assert len(records("net.py:net", "--data", "net.py:last_dropped")) == 10


@pytest.mark.parametrize("data", ["named", "args"])
def test_all_arguments_of_the_model_are_given(here, data):
    """Beside x and y a mapping holds arguments by name, and a tuple holds them by place; none is left out."""
    lines = records("net.py:Named", "--data", f"net.py:{data}")

    assert lines == records("net.py:net", "--data", "net.py:pair")


FILES = {
    "x.npy": lambda path: numpy.save(path, X.double().numpy()),
    "other_machine.npy": lambda path: numpy.save(path, X.numpy().astype(">f8")),
    "columns.npy": lambda path: numpy.save(path, numpy.asfortranarray(X.numpy())),
    "only.npz": lambda path: numpy.savez(path, X.numpy()),
    "pair.npz": lambda path: numpy.savez(path, x=X.double().numpy(), y=Y.numpy()),
    "tensor.pt": lambda path: torch.save(X, path),
    "dict.pt": lambda path: torch.save({"x": X, "y": Y}, path),
    "tuple.pth": lambda path: torch.save((X, Y), path),
    "list.ckpt": lambda path: torch.save([X, Y], path),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_gives_what_the_same_tensors_give(here, name):
    """Files of NumPy and torch, in whatever order of bytes or dtype of floats, are the same inputs."""
    FILES[name](here / name)

    lines = records("net.py:net", "--data", here / name)

    expected = records("net.py:net", "--data", "net.py:pair")
    assert [line["mean"] for line in lines] == [line["mean"] for line in expected]
    assert ("truth" in lines[0]) == (name in ("pair.npz", "dict.pt", "tuple.pth", "list.ckpt"))


def test_named_arrays_without_x_are_arguments_of_the_model(here):
    """Of several arrays in a file none is dropped."""
    numpy.savez(here / "named.npz", x=X.numpy(), mask=numpy.zeros((12, 1)))
    numpy.savez(here / "two.npz", inputs=X.numpy(), targets=Y.numpy())

    assert len(records("net.py:Named", "--data", "named.npz")) == 12
    assert "unexpected keyword argument 'inputs'" in refused("net.py:net", "--data", "two.npz")


LABELS = {
    "y.npy": lambda path: numpy.save(path, Y.numpy()),
    "bytes.npy": lambda path: numpy.save(path, Y.numpy().astype("uint8")),
    "column.npy": lambda path: numpy.save(path, Y[:, None].numpy()),
    "only.npz": lambda path: numpy.savez(path, Y.numpy()),
    "pair.npz": lambda path: numpy.savez(path, x=X.numpy(), y=Y.numpy()),
    "y.pt": lambda path: torch.save(Y, path),
    "list.pt": lambda path: torch.save(Y.tolist(), path),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_come_from_a_file(here, name):
    """The truth of any dtype of integers, alone in a file or as its y, in a column or not."""
    LABELS[name](here / name)

    assert done("net.py:net", "--data", "net.py:inputs", "--labels", name) == done(
        "net.py:net", "--data", "net.py:pair"
    )


@pytest.mark.parametrize("data", ["pair", "loader"])
def test_labels_take_the_place_of_what_comes_with_the_data(here, data):
    """What is said last holds."""
    torch.save((Y + 1) % 3, here / "other.pt")

    lines = records("net.py:net", "--data", f"net.py:{data}", "--labels", "other.pt")

    assert [line["truth"] for line in lines] == ((Y + 1) % 3).tolist()


def test_bool_is_a_truth_of_two_classes(here):
    """One logit is that of True."""
    torch.save(Y > 0, here / "bool.pt")

    lines = records("net.py:one_logit", "--data", "net.py:inputs", "--labels", "bool.pt")

    assert [line["truth"] for line in lines] == [int(one > 0) for one in Y]
    assert len(lines[0]["mean"]) == 2


# What is run


def test_a_module_of_a_package_is_no_file(here):
    """package.module:NAME names data, too, as it names models."""
    (here / "pkg").mkdir()
    (here / "pkg" / "__init__.py").touch()
    (here / "pkg" / "given.py").write_text(PROGRAM)

    assert len(records("pkg.given:net", "--data", "pkg.given:pair")) == 12


@pytest.mark.parametrize("wrapped", [False, True])
def test_weights_are_loaded_into_the_model(here, wrapped):
    """A state dict, bare or as Lightning keeps it, changes what is predicted."""
    state = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 3)).state_dict()
    zeros = {name: torch.zeros_like(one) for name, one in state.items()}
    torch.save({"state_dict": zeros, "epoch": 3} if wrapped else zeros, here / "zeros.pt")

    lines = records("net.py:net", "--data", "net.py:inputs", "--weights", "zeros.pt")

    assert lines[0]["mean"] == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("new", [True, False], ids=["zip", "before torch 1.6"])
def test_a_whole_module_is_loaded_only_where_it_is_trusted(here, monkeypatch, new):
    """It runs code; its class is found in the folder of the call, as a script there would find it."""
    (here / "whole_net.py").write_text("from torch import nn\nclass Net(nn.Sequential):\n    pass\n")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(here)
        module = import_module("whole_net").Net(nn.Linear(4, 3), nn.Dropout())
        torch.save(module, "w.pt", _use_new_zipfile_serialization=new)
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one not in ("", str(here))])
    monkeypatch.delitem(sys.modules, "whole_net")

    assert refused("w.pt", "--data", "net.py:inputs") == (
        "w.pt holds a whole module; loading it runs code in it: give --trust"
    )
    assert len(records("w.pt", "--trust", "--data", "net.py:inputs")) == 12


def test_equal_seeds_give_equal_bytes_and_others_do_not(here):
    """The masks follow the seed, which may be any 64 bits."""

    def out(seed):
        return done("net.py:net", "--data", "net.py:pair", "--seed", seed, "--jsonl", "-")

    assert out(7) == out(7)
    assert out(7) != out(8)
    assert out(2**64 - 1) == out(-1)


def test_the_batch_size_does_not_change_what_is_said(here):
    """Masks follow inputs and not batches; sums may differ in their last bits."""
    one, all = (records("net.py:net", "--data", "net.py:pair", "--batch-size", size) for size in (1, 12))

    assert [line["label"] for line in one] == [line["label"] for line in all]
    for name in ("mean", "variance"):
        assert numpy.allclose([line[name] for line in one], [line[name] for line in all], rtol=1e-5, atol=1e-7)


def test_the_options_of_predict_reach_it(here):
    """What the command gives is what `predict` gives with the same words."""
    options = {"masks": "shared", "plan": "stratified", "samples": 12, "seed": 3, "outputs": "probabilities"}
    words = [word for name, one in options.items() for word in (f"--{name}", one)]

    lines = records("net.py:probabilities", "--data", "net.py:pair", *words)

    names = {}
    exec(PROGRAM, names)
    expected = mc.predict(names["probabilities"](), X, **options)
    assert [line["mean"] for line in lines] == expected.mean.tolist()


def test_until_stops_early(here):
    """Inputs take fewer passes where the error is small enough already, and the table says how many."""
    lines = records("net.py:net", "--data", "net.py:pair", "--samples", 400, "--until", 0.05)

    assert all(line["samples"] % 10 == 0 for line in lines)
    assert min(line["samples"] for line in lines) < 400
    assert all(max(line["standard_error"]["mean"]) <= 0.05 for line in lines)


def test_classes_may_lie_in_the_last_dimension(here):
    """Of tokens each has a label and a truth; inputs are ordered by the mean over them."""
    words = "net.py:tokens", "--data", "net.py:sentences", "--class-dim", -1

    lines, out = records(*words), done(*words)

    assert numpy.shape(lines[0]["mean"]) == (4, 5)
    assert numpy.shape(lines[0]["label"]) == numpy.shape(lines[0]["truth"]) == (4,)
    assert re.search(r"labels +24\n", out)
    assert re.search(r"\n  \d +- +0\.\d+", out)


def test_the_truth_tells_where_the_classes_lie(here):
    """Or whoever predicts has to: the line that refuses names the option."""
    words = "net.py:tokens", "--data"

    assert records(*words, "net.py:sentences") == records(*words, "net.py:sentences", "--class-dim", -1)
    numpy.save(here / "x.npy", numpy.zeros((6, 4), dtype=numpy.int64))
    line = refused(*words, "x.npy")
    assert "class_dim must be given for outputs of shape (6, 4, 5)" in line
    assert line.endswith("; on the command line: --class-dim")


# What is printed and written


@pytest.mark.parametrize("weights", [True, False])
def test_weights_that_nobody_loaded_are_reported(here, weights):
    """On stderr, in each record and on the page; not where they are given, or come in a checkpoint."""
    torch.save(_program()["net"]().state_dict(), here / "weights.pt")
    torch.save(nn.Sequential(nn.Linear(4, 3), nn.Dropout()), here / "model.pt")
    model = ["net.py:net", "--weights", "weights.pt"] if weights else ["net.py:net"]
    words = "--data", "net.py:inputs", "--jsonl", "found.jsonl", "--html", "page.html"

    result = run(*model, *words)

    said = UNLOADED.removeprefix("warning: ").rstrip()
    assert result.stderr == ("" if weights else UNLOADED)
    lines = [json.loads(line) for line in (here / "found.jsonl").read_text().splitlines()]
    assert {said in line["notes"] for line in lines} == {not weights}
    assert (said.partition(":")[0] in (here / "page.html").read_text()) != weights
    assert run("model.pt", "--trust", *words).stderr == ""


def _program():
    names = {}
    exec(PROGRAM, names)
    return names


def test_the_table_is_plain_in_a_pipe_and_colored_on_demand(here, monkeypatch):
    """Without a terminal there are no escape codes, with --color always there are, whatever NO_COLOR says."""
    words = "net.py:net", "--data", "net.py:pair"
    plain = done(*words)
    monkeypatch.setenv("NO_COLOR", "1")

    colored = done(*words, "--color", "always")

    assert "\x1b" not in plain
    assert [line.rstrip() for line in re.sub(r"\x1b\[[\d;]*m", "", colored).split("\n")] == plain.split("\n")
    assert colored != plain
    assert done(*words, "--color", "never") == plain


def test_notes_are_yellow_and_their_brackets_are_text(monkeypatch):
    """What stands in brackets or colons is neither markup nor an emoji; the caller has asked NO_COLOR already."""
    monkeypatch.setenv("NO_COLOR", "1")
    found = mc.from_samples(torch.full((2, 3, 2), 0.5))
    object.__setattr__(found, "notes", ("layer [bold] of [0, 1) :x: dropped",))

    out = mc_summary.text(found, None, None, 1, color=True)

    assert "\x1b[33mnote: layer [bold] of [0, 1) :x: dropped\x1b[0m" in out


def test_no_line_is_wider_than_a_page_or_ends_in_blanks(here):
    """The table can be pasted anywhere."""
    lines = done("net.py:value", "--data", "net.py:values", "--task", "regression").splitlines()

    assert max(map(len, lines)) <= 100
    assert all(line == line.rstrip() for line in lines)


@pytest.mark.parametrize(("top", "rows"), [(0, 0), (1, 1), (99, 12)])
def test_top_says_how_many_inputs_are_shown(here, top, rows):
    """At most as many as there are, the least certain first, and none without a heading."""
    out = done("net.py:net", "--data", "net.py:inputs", "--top", top)

    assert ("least certain" in out) == (rows > 0)
    doubts = [float(line.split()[4]) for line in out.partition("least certain")[2].rstrip().split("\n")[4:]]
    assert len(doubts) == rows
    assert doubts == sorted(doubts, reverse=True)


def test_lines_of_json_go_to_a_file_beside_the_table(here):
    """One for each input, in order, and what they hold is what the prediction holds."""
    out = done("net.py:net", "--data", "net.py:pair", "--jsonl", "found.jsonl")

    lines = [json.loads(line) for line in (here / "found.jsonl").read_text().splitlines()]
    assert TRUTH in out
    assert [line["index"] for line in lines] == list(range(12))
    assert lines == records("net.py:net", "--data", "net.py:pair")
    assert all(sum(line["mean"]) == pytest.approx(1) for line in lines)
    assert all(line["label"] == numpy.argmax(line["mean"]) for line in lines)


def test_what_the_users_code_prints_does_not_stand_among_the_json(here):
    """It goes to standard error, where people can still read it."""
    result = run("net.py:Loud", "--data", "net.py:loud", "--jsonl", "-")

    assert [json.loads(line)["index"] for line in result.stdout.splitlines()] == list(range(12))
    assert "in the data" in result.stderr
    assert "in the model" in result.stderr
    assert "in the model" in done("net.py:Loud", "--data", "net.py:loud")


def test_what_is_not_a_number_is_null_and_said(here):
    """JSON knows no NaN; a label of such numbers is none, and a note counts such inputs."""
    words = "net.py:Broken", "--data", "net.py:inputs", "--batch-size", 4

    lines, out = records(*words), done(*words)

    assert [line["index"] for line in lines if line["mean"] == [None] * 3] == [0, 4, 8]
    assert [line["index"] for line in lines if line["label"] is None] == [0, 4, 8]
    assert "note: the mean is not a finite number for 3 of 12 inputs" in out
    assert re.search(r"entropy +nan +nan\n", out)


def test_one_sample_has_no_standard_error(here):
    """Errors are nan in the table and null in JSON, and a note says why."""
    words = "net.py:value", "--data", "net.py:inputs", "--task", "regression", "--samples", 1

    lines, out = records(*words), done(*words)

    assert lines[0]["standard_error"] == {"mean": [None], "variance": [None]}
    assert re.search(r"mean +\S+ +nan\n", out)
    assert "note: one sample tells nothing of its error, which is nan" in out
    assert "nan" in done("net.py:net", "--data", "net.py:pair", "--samples", 1)


def test_a_line_is_not_as_long_as_an_image(here):
    """More than a thousand numbers in one place are left out, in the truth and the labels, too."""
    found = mc.from_samples(torch.full((2, 3, mc_summary.MOST_NUMBERS + 1, 2), 0.5))

    lines = [*mc_summary.lines(found, found.label)]

    assert all(lines[0][name] is None for name in ("mean", "label", "truth", "entropy"))
    assert records("net.py:Wide", "--data", "net.py:inputs")[0]["mean"] is None


# Values


def test_a_fitted_tau_is_said_to_flatter(here):
    """It was chosen for the truth that it is then judged by; one that is given was not."""
    words = "net.py:value", "--data", "net.py:values", "--task", "regression"

    fitted = done(*words)
    tau = float(re.search(r"\ntau +(\S+)\n", fitted)[1])

    assert "note: tau was fitted to the same truth" in fitted
    given = done(*words, "--tau", 2 * tau)
    assert f"{2 * tau:.4f}" in given
    assert "note" not in given
    assert "note" not in done("net.py:value", "--data", "net.py:inputs", "--task", "regression")


def test_a_given_tau_is_less_likely_than_the_fitted_one(here):
    """The note is right: no other precision makes this truth likelier."""

    def likelihood(*options):
        out = done("net.py:value", "--data", "net.py:values", "--task", "regression", *options)
        return float(re.search(r"log_likelihood +(\S+)", out)[1]), float(re.search(r"\ntau +(\S+)", out)[1])

    best, tau = likelihood()

    assert likelihood("--tau", tau * 1.5)[0] < best
    assert likelihood("--tau", tau / 1.5)[0] < best


def test_values_may_be_several(here):
    """Each input has a mean of two values, a deviation of two and a truth of two."""
    words = "net.py:two", "--data", "net.py:values_of_two", "--task", "regression"

    lines, out = records(*words), done(*words)

    assert lines[0]["truth"] == X[0, :2].tolist()
    assert len(lines[0]["mean"]) == len(lines[0]["variance"]) == 2
    assert re.search(r"\n  \d+ +\S+, \S+ +\S+, \S+ +\S+, \S+\n", out)


def test_a_truth_without_the_column_of_the_model_is_the_same_truth(here):
    """(N,) is compared with (N, 1) number by number, and not each with all."""
    words = "net.py:value", "--task", "regression", "--tau", 1

    flat = done(*words, "--data", "net.py:values")

    torch.save((X, X.sum(1, keepdim=True)), here / "column.pt")
    assert done(*words, "--data", "column.pt") == flat


# What is refused


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["net"], "MODEL must be FILE.py:NAME, package.module:NAME or .pt, .pth or .ckpt, got 'net'"),
        (["net.bin"], "MODEL must be FILE.py:NAME, package.module:NAME or .pt, .pth or .ckpt, got 'net.bin'"),
        (["none.pt"], "Invalid value for MODEL: must name a file, got 'none.pt'"),
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
        (["net.py:net", "--weights", "none.pt"], "Invalid value for --weights: must name a file, got 'none.pt'"),
        (["net.py:net", "--weights", "state.pt"], "--weights does not fit the model: Error(s) in loading state_dict"),
        (["net.py:net", "--weights", "tensor.pt"], "--weights does not fit the model: Expected state_dict to be dict"),
        (["net.py:net", "--weights", "numbers.pt"], "--weights does not fit the model: 'int' object has no"),
        (["net.py:net", "--weights", "whole.pt"], "must hold numbers, got 'whole.pt': it holds objects, or is damaged"),
        (["net.py:net", "--weights", "net.py"], "must be .npy, .npz, .pt, .pth or .ckpt, got 'net.py'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@pytest.mark.filterwarnings("ignore:`torch.jit.*` is deprecated")
def test_a_model_that_is_none_is_refused(here, words, said):
    """The line names what was typed and what would do."""
    torch.save(nn.Linear(2, 2).state_dict(), "state.pt")
    torch.save(torch.zeros(2), "tensor.pt")
    torch.save({1: torch.zeros(2)}, "numbers.pt")
    torch.save(nn.Linear(2, 2), "whole.pt")
    torch.jit.script(nn.Linear(4, 3)).save("script.pt")
    (here / "junk.pt").write_text("hello there")
    (here / "empty.pt").touch()

    line = refused(*words, "--data", "net.py:inputs")

    assert said in line


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("none.npy", "must name a file, got 'none.npy'"),
        ("x.csv", "must be FILE.py:NAME or .npy, .npz, .pt, .pth or .ckpt, got 'x.csv'"),
        ("net.py:nothing", "net.py has no nothing; it has "),
        ("net.py:fails", "net.py:fails could not be loaded: KeyError: 'no such data'"),
        ("junk.npy", "must hold numbers, got 'junk.npy': it holds objects, or is damaged"),
        ("empty.npy", "must hold numbers, got 'empty.npy': EOFError"),
        ("junk.npz", "must hold numbers, got 'junk.npz': BadZipFile"),
        ("nothing.npz", "inputs must hold a tensor with a batch dimension, got nothing"),
        ("objects.npy", "must hold numbers, got 'objects.npy': it holds objects, or is damaged"),
        ("words.npy", "can't convert np.ndarray of type numpy.str_"),
        ("objects.pt", "must hold numbers, got 'objects.pt': it holds objects, or is damaged"),
        ("y.pt", "inputs must hold a tensor with a batch dimension, got nothing"),
        ("net.py:scalar", "inputs must hold a tensor with a batch dimension, got Tensor"),
        ("net.py:dataset", "or yield batches, got TensorDataset"),
        ("net.py:empty", "inputs must be at least one, got none"),
        ("net.py:uneven", "--data must yield truths of one shape: "),
        ("narrow.npy", "the model could not be run (it was given (12, 3)): RuntimeError: mat1 and mat2"),
        ("narrow.npz", "the model could not be run (it was given (12, 3), (12, 1)): TypeError: "),
    ],
)
def test_data_that_is_none_is_refused(here, data, said):
    """Whatever lies in a file or comes of a function, there is one line and no traceback."""
    (here / "junk.npy").write_text("hello there")
    (here / "junk.npz").write_bytes(b"PK\x03\x04 hello there")
    (here / "empty.npy").touch()
    numpy.savez(here / "nothing.npz")
    numpy.save(here / "objects.npy", numpy.array([{}]), allow_pickle=True)
    numpy.save(here / "words.npy", numpy.array(["a", "b"]))
    numpy.save(here / "narrow.npy", X[:, :3].numpy())
    numpy.savez(here / "narrow.npz", x=X[:, :3].numpy(), mask=X[:, :1].numpy())
    torch.save({"x": numpy.zeros(3)}, here / "objects.pt")
    torch.save({"y": Y}, here / "y.pt")

    line = refused("net.py:net", "--data", data)

    assert said in line
    assert line.count("\n") == 0


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (Y[:11], "Invalid value for --labels: the truth must be one for each of 12 inputs, got shape (11,)"),
        (torch.tensor(1), "the truth must be one for each of 12 inputs, got shape ()"),
        (Y.float(), "must be classes as integers, got torch.float32; values are for --task regression"),
        (Y + 1, "the prediction cannot be compared with the truth: y must be in [0, 3), got 3"),
        (Y - 1, "the prediction cannot be compared with the truth: y must be in [0, 3), got -1"),
        (Y.view(6, 2), "one for each of 12 inputs, got shape (6, 2)"),
        (Y[:, None].repeat(1, 2), "cannot be compared with the truth: y must be of shape (12,), got (12, 2)"),
        (["a"] * 12, "the truth must be numbers: "),
        ([[1], [1, 2]], "the truth must be numbers: "),
        ({"x": X, "z": Y}, "Invalid value for --labels: must hold y, got x, z"),
    ],
    ids=["short", "scalar", "float", "too large", "too small", "folded", "two", "words", "uneven", "named"],
)
def test_a_truth_that_is_none_of_classes_is_refused(here, labels, said):
    """Floats are not rounded to classes, and classes that are not there are not counted."""
    torch.save(labels, here / "labels.pt")

    assert said in refused("net.py:net", "--data", "net.py:inputs", "--labels", "labels.pt")


@pytest.mark.parametrize(
    ("labels", "options", "said"),
    [
        (X[:, :2], [], "cannot be compared with the truth: y must be of shape (12, 1), got (12, 2)"),
        (X[:11, 0], [], "the truth must be one for each of 12 inputs, got shape (11,)"),
        (X[:, 0] / 0, [], "Invalid value for --labels: the truth must be finite numbers, got others"),
        (X[:, 0], ["--samples", "1"], "samples must be at least 2 of each input, to have a variance, got 1"),
    ],
    ids=["wide", "short", "not finite", "one sample"],
)
def test_a_truth_that_is_none_of_values_is_refused(here, labels, options, said):
    """Neither a wrong shape nor NaN becomes a number in the table."""
    torch.save(labels, here / "labels.pt")
    words = "--data", "net.py:inputs", "--labels", "labels.pt", "--task", "regression"

    assert said in refused("net.py:value", *words, *options)


def test_a_prediction_that_is_no_number_is_not_compared(here):
    """A label of NaN would be class 0."""
    line = refused("net.py:Broken", "--data", "net.py:pair")

    assert line == "the prediction cannot be compared with the truth: predictions must be finite numbers, got others"


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        ("plain", [], "no dropout is active: the model has none that can be seen, or its rates are 0"),
        ("plain", [], "on the command line: dropkit audit"),
        ("Raises", [], "the model could not be run (it was given (12, 4)): KeyError: 'no such thing'"),
        ("Leaves", [], "the model could not be run (it was given (12, 4)): SystemExit: 0"),
        ("net", ["--class-dim", "5"], "class_dim must be a dimension of the output after the first, of 2, got 5"),
        (
            "net",
            ["--outputs", "probabilities"],
            'outputs must be "logits" where they are no probabilities, got sums of ',
        ),
        ("probabilities", [], 'outputs must be "probabilities" where the model returns them'),
        ("sigmoids", [], "one class of several is true, or give --task regression for the mean and variance"),
        ("sigmoids", ["--outputs", "probabilities"], "or give --task regression for the mean and variance"),
    ],
)
def test_a_model_that_cannot_be_sampled_is_refused(here, model, options, said):
    """The line says what it was given, what went wrong and what to do."""
    assert said in refused(f"net.py:{model}", "--data", "net.py:inputs", *options)


@pytest.mark.parametrize("options", [[], ["--outputs", "probabilities"]])
def test_an_error_names_what_the_command_line_has(here, options):
    """A sigmoid of several labels is a task of its own here, and no option gives a function."""
    line = refused("net.py:sigmoids", "--data", "net.py:inputs", *options)

    assert "output=" not in line
    assert "--outputs" not in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--samples 0", "--samples"),
        ("--batch-size 0", "--batch-size"),
        ("--top -1", "--top"),
        ("--until 0", "'--until': must be larger than 0 and finite, got 0.0"),
        ("--until nan", "'--until': must be larger than 0 and finite, got nan"),
        ("--until 0.1 --plan stratified", "--until needs --plan iid: stratified samples end together"),
        ("--tau 0 --task regression", "'--tau': must be larger than 0 and finite, got 0.0"),
        ("--tau inf --task regression", "'--tau': must be larger than 0 and finite, got inf"),
        ("--tau 1", "--tau means nothing with --task classification"),
        ("--task regression --outputs logits", "--outputs means nothing with --task regression"),
        ("--task regression --class-dim -1", "--class-dim means nothing with --task regression"),
        ("--seed 18446744073709551616", "'--seed': it must fit 64 bits, in [-2**63, 2**64), got 18446744073709551616"),
        ("--html no/page.html", "Invalid value for --html: must lie in a folder that exists, got 'no/page.html'"),
        ("--jsonl no/x.jsonl", "Invalid value for --jsonl: must lie in a folder that exists, got 'no/x.jsonl'"),
        ("--html .", "is a directory"),
        ("--jsonl .", "is a directory"),
    ],
)
def test_options_are_refused_before_anything_is_run(here, words, said):
    """What is wrong in what was typed needs no model to be seen, and no minutes of sampling are lost."""
    assert said in refused("none.py:net", "--data", "none.npy", *words.split())


def test_what_cannot_be_written_is_named(here):
    """A full disk gives a line and exit code 2."""
    result = run("net.py:net", "--data", "net.py:inputs", "--jsonl", "/dev/full")

    assert (result.exit_code, result.stderr) == (
        2,
        f"{UNLOADED}Error: /dev/full could not be written: No space left on device\n",
    )


# What need not be installed


@pytest.mark.parametrize(
    ("package", "words"),
    [
        ("matplotlib", "net.py:net --data net.py:pair --html page.html"),
        ("jinja2", "net.py:net --data net.py:pair --html page.html"),
        ("scipy", "net.py:value --data net.py:values --task regression"),
        ("numpy", "tiny.py:model --data x.npy"),
    ],
)
def test_a_missing_package_is_named_in_one_line(here, monkeypatch, package, words):
    """The line says how to install it, and nothing was run before."""
    numpy.save(here / "x.npy", X.numpy())
    (here / "tiny.py").write_text("from torch import nn\nmodel = nn.Dropout()\n")
    monkeypatch.setitem(sys.modules, package, None)

    line = refused(*words.split())

    assert re.fullmatch(rf"{package} is needed [^\n]+: pip install \"dropkit\[mc\]\"", line)


def test_a_table_needs_no_more_than_torch(here):
    """Without what draws pages and fits tau the rest is there, as a process, exit code and all."""
    missing = "import sys; sys.modules.update(dict.fromkeys(['matplotlib', 'jinja2', 'scipy', 'torchmetrics']));"
    code = f"{missing} from dropkit.cli import main; main()"
    words = [sys.executable, "-c", code, "mc", "net.py:net", "--data", "net.py:pair"]

    process = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)

    assert (process.returncode, process.stderr) == (0, UNLOADED)
    assert TRUTH in process.stdout


def test_help_names_every_option_and_default():
    """What can be said and what is meant without it stands in the help, each with a word on what it does."""
    text = " ".join(done("--help").split())

    for name in inspect.signature(mc.predict).parameters.keys() & {one.name for one in command.params}:
        assert f"--{name.replace('_', '-')} " in text or name == "model"
    assert all(one.help for one in command.params if one.name not in ("model", "color", "help"))
    for default in ("50", "classification", "iid", "logits", "0", "256", "10", "auto"):
        assert f"[default: {default}" in text


# The page

PAGES = {
    "truth": "net.py:net --data net.py:pair",
    "no truth": "net.py:net --data net.py:inputs",
    "tokens": "net.py:tokens --data net.py:sentences --class-dim -1",
    "values": "net.py:value --data net.py:values --task regression",
    "values, no truth": "net.py:two --data net.py:inputs --task regression",
    "one sample": "net.py:net --data net.py:pair --samples 1 --top 0",
    "not a number": "net.py:Broken --data net.py:inputs",
}
FIGURES = {"truth": 3, "tokens": 3, "values": 2, "one sample": 3}


@pytest.mark.parametrize("kind", PAGES)
def test_the_page_shows_what_the_table_shows(here, kind):
    """The same measures, inputs and notes, a tile for each number and a figure for what is known."""
    out = done(*PAGES[kind].split(), "--html", "page.html")
    page = (here / "page.html").read_text()

    for line in re.findall(r"^  (\d+) +\S+ ", out, re.M):
        assert f'<td class="number">{line}</td>' in page
    for note in re.findall(r"^note: (.{30})", out, re.M):
        assert note in page
    assert page.count("<figure>") == page.count("<svg") == FIGURES.get(kind, 1)
    assert ("Least certain" in page) == ("least certain" in out)


def test_no_name_is_borne_twice_in_a_page(here):
    """Plots stand beside each other, and what one refers to must be its own or the same."""
    done(*PAGES["truth"].split(), "--html", "page.html")
    page = (here / "page.html").read_text()

    bodies = re.findall(r'<(\w+) id="([^"]+)"(.*?)</\1>', page, re.S)

    assert len({name for _, name, _ in bodies}) == len({(name, body) for _, name, body in bodies})


def test_names_are_escaped_in_the_page():
    """A title, a label or a note cannot become part of the page."""
    found = mc.from_samples(torch.full((2, 3, 2), 0.5))
    object.__setattr__(found, "notes", ("<script>alert(1)</script>",))

    page = mc_summary.page(found, None, None, 1, "<script>alert(2)</script>&")

    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(2)&lt;/script&gt;&amp;") == 2
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 1


# Ratio of contrast that WCAG 2.2 asks of text, and of what a plot draws.
TEXT, DRAWN = 4.5, 3.0
READ = """() => {
  const of = (one, what) => getComputedStyle(one)[what].match(/[\\d.]+/g).slice(0, 3).map(Number)
  const paper = of(document.querySelector('main'), 'backgroundColor')
  const text = [...document.querySelectorAll('h1, h2, p, td, th, figcaption')].map(one => of(one, 'color'))
  const drawn = [...document.querySelectorAll('svg text')].map(one => of(one, 'fill'))
  const boxes = [...document.querySelectorAll('svg')].map(one => one.getBoundingClientRect())
  return {paper, text, drawn, heights: boxes.map(one => one.height), inner: window.innerWidth,
          wide: document.documentElement.scrollWidth, bars: [[31, 111, 235]]}
}"""


@pytest.fixture(scope="module")
def browser():
    if shutil.which("chromium") is None:
        pytest.skip("chromium is not installed")
    sync = pytest.importorskip("playwright.sync_api")
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["truth", "no truth", "values"])
def test_a_browser_shows_the_page_readably_and_asks_for_nothing(here, browser, kind, scheme):
    """Light and dark, on a screen and on a telephone: no complaint, no request, contrast, nothing beyond the edge."""
    done(*PAGES[kind].split(), "--html", "page.html")

    complaints, requests, seen = visited(browser, here / "page.html", scheme)

    assert complaints == []
    assert requests == [(here / "page.html").as_uri()] * len(seen)
    for one in seen:
        assert min(contrast(color, one["paper"]) for color in one["text"] + one["drawn"]) >= TEXT
        assert min(contrast(color, one["paper"]) for color in one["bars"]) >= DRAWN
        assert one["wide"] <= one["inner"]
        assert 100 < min(one["heights"]) <= max(one["heights"]) < 500
    assert len({tuple(one["paper"]) for one in seen}) == 1
    assert (sum(seen[0]["paper"]) > 600) == (scheme == "light")


def visited(browser, file, scheme):
    """Messages, requests, and what is seen on a screen and on a telephone."""
    complaints, requests, seen = [], [], []
    for width in (1400, 320):
        page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(file.as_uri())
        page.wait_for_load_state("networkidle")
        seen.append(page.evaluate(READ))
        page.close()
    return complaints, [url for url in requests if not url.startswith("data:")], seen


def contrast(one, other):
    """Of two colours, by WCAG 2.2."""
    least, most = sorted(luminance(color) for color in (one, other))
    return (most + 0.05) / (least + 0.05)


def luminance(color):
    linear = [part / 255 / 12.92 if part <= 10 else ((part / 255 + 0.055) / 1.055) ** 2.4 for part in color]
    return sum(part * share for part, share in zip(linear, (0.2126, 0.7152, 0.0722), strict=True))
