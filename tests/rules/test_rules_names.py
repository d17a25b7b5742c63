"""What a name excuses: whole words that say that dropout stays on, for information, and no word inside of another."""

import subprocess
import sys

import pytest
from helpers.aliases import aliases_change_no_finding  # noqa: F401

from dropkit.diagnostics import Severity
from dropkit.lint.engine.check_file import check
from dropkit.lint.engine.config import Config
from dropkit.lint.engine.fixing import fix_bytes
from dropkit.lint.semantic.always_on import is_always_on_name
from dropkit.lint.semantic.model import read
from dropkit.lint.semantic.source_text import Text
from dropkit.lint.semantic.training_flag import is_flag
from dropkit.rules import RULES

NO_EXCUSES = (
    "Denoiser", "AlwaysX", "UncertaintyHead", "BayesY", "BayesianNet", "NoiseRobust", "EpistemicHead", "Preneter",
    "McDonald", "CarloNet",
)  # fmt: skip
EXCUSES = ("MCDropout", "MonteCarloDropout", "mc_dropout_head", "Prenet", "PreNet", "TacotronPrenet", "AlwaysOnDropout")
CALLS = {
    "DRP101": "F.dropout(x, 0.5)",
    "DRP102": "F.scaled_dot_product_attention(x, x, x, dropout_p=0.5)",
    "DRP103": "nn.Dropout(0.5)(x)",
}


def program(name, call, base="nn.Module"):
    return (
        "import torch.nn.functional as F\nfrom torch import nn\n\n\n"
        f"class {name}({base}):\n    def __init__(self):\n        super().__init__()\n\n"
        f"    def forward(self, x):\n        return {call}\n"
    )


def found(source):
    return check(read("example.py", Text(source.encode())), RULES)


@pytest.mark.parametrize("name", NO_EXCUSES)
@pytest.mark.parametrize("code", CALLS)
def test_a_word_inside_of_a_name_excuses_nothing(code, name):
    """Nor does a base of such a name."""
    subclass = program(name, "x") + program("Heir", CALLS[code], name)

    for source in (program(name, CALLS[code]), subclass):
        assert [(one.code, one.severity) for one in found(source)] == [(code, Severity.ERROR)]


@pytest.mark.parametrize("name", EXCUSES)
@pytest.mark.parametrize("code", CALLS)
def test_names_with_whole_words_lower_the_severity_and_remove_the_fix(code, name):
    source = program(name, CALLS[code])
    subclass = program(name, "x") + program("Heir", CALLS[code], name)

    for one in (source, subclass):
        assert [(f.code, f.severity, f.fix) for f in found(one)] == [(code, Severity.INFO, None)]
    config = Config(severity=Severity.INFO)
    assert fix_bytes(source.encode(), found(source), config, unsafe=True) == (source.encode(), [])


@pytest.mark.parametrize("format", ["concise", "full", "json", "sarif", "github"])
def test_information_is_shown_on_request_and_fails_no_run(tmp_path, format):
    file = tmp_path / "model.py"
    file.write_text(program("MCDropout", CALLS["DRP101"]))
    command = [sys.executable, "-m", "dropkit", "check", str(file), "--no-cache", "-f", format]

    quiet = subprocess.run(command, capture_output=True, text=True)
    shown = subprocess.run([*command, "--severity", "info"], capture_output=True, text=True)

    assert (quiet.returncode, shown.returncode) == (0, 0), shown.stderr
    assert "DRP101" in shown.stdout


@pytest.mark.parametrize(
    "name",
    [
        "constraint", "strainer", "interval", "retrieval", "downsample", "interactive", "latest", "stage", "phase",
        "num_test_samples", "active_experts", "test_batch", "stage_norm", "sampling_rate", "training_steps",
        "eval_interval", "train_loader", "always_norm", "predict_default", "switch_layers", "mc_controller",
    ],
)  # fmt: skip
def test_a_flag_is_one_by_its_whole_name(name):
    """A condition on another name is no condition on the mode, whatever word it has."""
    source = program("Net", CALLS["DRP101"]).replace("return ", f"if x.{name}: return ")

    assert not is_flag(name)
    assert [one.code for one in found(source)] == ["DRP101"]


@pytest.mark.parametrize(
    "name",
    [
        "training", "is_train", "isTraining", "istraining", "trainmode", "apply_during_inference", "use_mc_dropout",
        "dropout_switch", "monte_carlo", "eval_mode", "deterministic", "is_test", "testing", "test_time", "sampling",
        "always_on", "is_active", "use_dropout", "mc_samples", "eval_dropout", "dropout_in_eval", "inference_only",
        "train_phase", "not_training", "TRAIN", "isPredicting",
    ],
)  # fmt: skip
def test_a_flag_says_so_in_a_whole_word(name):
    assert is_flag(name)
    assert found(program("Net", CALLS["DRP101"]).replace("return ", f"if x.{name}: return ")) == []


def under(condition):
    """A dropout behind a condition on what is no attribute."""
    return (
        program("Net", CALLS["DRP101"])
        .replace("(self, x)", "(self, x, phase, sample, training)")
        .replace("        return ", f"        {condition}return ")
    )


@pytest.mark.parametrize(
    "condition",
    [
        'if phase == "train": ', 'if "train" == self.mode: ', 'if phase != "test": ', "if phase in (Stage.TRAIN, 1): ",
        'if self.split in ("train", "val"): ', "if training and x.ndim: ", "assert training\n        ",
        "assert x.ndim == 2 and self.training, x\n        ", "mode = phase == 'train'\n        if mode: ",
        "assert not self.testing\n        ", 'if phase == "test":\n            return x\n        ',
    ],
)  # fmt: skip
def test_a_condition_tests_the_mode_by_a_flag_or_by_a_string_that_names_it(condition):
    assert found(under(condition)) == []


@pytest.mark.parametrize(
    "condition",
    [
        "if phase == 1: ", "if phase: ", "if phase is not None: ", "if sample is not None: ", 'if phase == "warm_up": ',
        "for stage in self.stages:\n            if stage: ", "assert x.size(0) == self.test_batch\n        ",
        "assert x.ndim == 2 or training\n        ", "assert x.training == phase\n        ",
        "if x is None:\n            return self.predict()\n        ", "if x.shape == self.test_shape: ",
    ],
)  # fmt: skip
def test_a_condition_on_another_name_is_not_on_the_mode(condition):
    assert [one.code for one in found(under(condition))] == ["DRP101"]


@pytest.mark.parametrize("path", ["noise/generator/sampler_files/model.py", "denoise_all/net.py"])
def test_the_folder_of_a_file_excuses_nothing(path):
    source = program("RowDropout", "x * (F.relu(x).bernoulli())")
    module = read(path, Text(source.encode()))

    assert [(one.code, one.severity.value) for one in check(module, RULES)] == [("DRP108", "warning")]


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("def latest():\n    return F.dropout(x, 1.5)\n", "DRP301"),
        (
            "class Baseline(nn.Module):\n    def __init__(self, dropout=0.1):\n        super().__init__()\n"
            "        self.fc = nn.Linear(2, 2)\n    def forward(self, x):\n        return self.fc(x)\n",
            "DRP203",
        ),
        (
            "class Pattern(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
            "        self.drop = nn.Dropout(0.1)\n    def forward(self, x):\n"
            "        return self.drop(F.log_softmax(x, 1))\n",
            "DRP403",
        ),
    ],
)
def test_other_excuses_are_whole_words_too(source, code):
    """Not "test" in `latest`, "base" in `Baseline`, "att" in `Pattern`."""
    findings = found("import torch.nn.functional as F\nfrom torch import nn\n" + source)

    assert (code, False) in [(one.code, one.severity is Severity.INFO) for one in findings]


def test_names_are_recognised_by_whole_words():
    assert all(map(is_always_on_name, EXCUSES))
    assert not any(map(is_always_on_name, NO_EXCUSES))


HEAD = "import torch\nimport torch.nn.functional as F\nfrom torch import nn\n"
USER = "class {0}(nn.Module):\n    def __init__(self, model):\n        super().__init__()\n        self.model = {1}\n"


def layer(line, name="Decoder", rest=""):
    return (
        f"{HEAD}class {name}(nn.Module):\n    def __init__(self, rate=0.5):\n        super().__init__()\n"
        "        self.rate = self.mc_p = self.prenet_dropout = self.uncertainty_rate = self.hidden_dropout = rate\n"
        "        self.fc = nn.Linear(3, 3)\n    def forward(self, x):\n"
        f"        {line}\n        return self.fc(y)\n{rest}"
    )


def passes(body, name="predict", arguments="model, x, n"):
    return f"def {name}({arguments}):\n    {body}\n"


def severities(source, path="net.py"):
    findings = check(read(path, Text(source.encode())), RULES)
    return [one.severity.value for one in findings if one.code in ("DRP101", "DRP109")]


REPEATED = {
    "variance": passes("return torch.stack([model(x) for _ in range(n)]).var(0)"),
    "mean": passes("return torch.stack([model(x).softmax(-1) for _ in range(n)]).mean(0)"),
    "list": passes(
        "ys = []\n    for i in range(n):\n        y = model(x)\n        ys.append(y)\n    return torch.cat(ys).std()"
    ),
    "method": passes(
        "out = torch.stack([self(x) for _ in range(20)])\n    return out.mean(0), out.std(0)", arguments="self, x"
    ),
}
SAYS_SO = {
    "target": layer("prenet_out = y = F.dropout(x, 0.5, training=True)"),
    "rate": layer("y = F.dropout(x, self.mc_p, training=True)"),
    "rate of the pre-net": layer("y = F.dropout(x, p=self.prenet_dropout, training=True)"),
    "rate of an estimate": layer("y = F.dropout(x, self.uncertainty_rate, training=True)"),
    "what takes the result": layer("y = self.prenet(F.dropout(x, 0.5, training=True))"),
    "a user": layer("y = F.dropout(x, 0.5, training=True)", rest=USER.format("MCDropoutModel", "Decoder()")),
    "a user of a function": layer(
        "y = F.dropout(x, 0.5, training=True)",
        rest="def swap(m):\n    return Decoder()\n" + USER.format("MonteCarloNet", "swap(model)"),
    ),
    "a class beside a dropout layer": layer(
        "y = F.dropout(x, 0.5, True)", "WeightDropLinear", USER.format("MCDropoutModule", "model")
    ),
    **{f"passes: {name}": layer("y = F.dropout(x, 0.5, training=True)", rest=rest) for name, rest in REPEATED.items()},
}  # fmt: skip


@pytest.mark.parametrize("source", SAYS_SO.values(), ids=SAYS_SO)
def test_what_says_that_dropout_is_random_by_design_makes_it_information(source):
    assert severities(source) == ["info"]


SAYS_NOTHING = {
    "rate": layer("y = F.dropout(x, self.hidden_dropout, training=True)"),
    "another statement": layer("prenet = x\n        y = F.dropout(x, 0.5, training=True)"),
    "a class that does not use it": layer(
        "y = F.dropout(x, 0.5, training=True)", rest=USER.format("MCDropoutNet", "model")
    ),
    "one pass": layer("y = F.dropout(x, 0.5, training=True)", rest=passes("return model(x).mean(), model(x).var()")),
    "training": layer(
        "y = F.dropout(x, 0.5, training=True)",
        rest=passes("for _ in range(n):\n        loss = model(x).mean()\n        loss.backward()", "fit"),
    ),
    "depth": layer(
        "y = F.dropout(x, 0.5, training=True)",
        rest=passes("for _ in range(n):\n        x = model(x)\n    return x.mean()", "unroll"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("source", SAYS_NOTHING.values(), ids=SAYS_NOTHING)
def test_what_says_nothing_about_this_dropout_leaves_the_warning(source):
    assert severities(source) == ["warning"]


@pytest.mark.parametrize(
    ("path", "call", "severity"),
    [
        ("src/mc_dropout.py", "F.dropout(x, 0.5, training=True)", "info"),
        ("src/bayesian/net.py", "F.dropout(x, 0.5, training=True)", "info"),
        ("src/mc_dropout.py", "F.dropout(x, 0.5)", "info"),
        ("src/bayesian/net.py", "F.dropout(x, 0.5)", "error"),
        ("bayesian/src/nets/net.py", "F.dropout(x, 0.5, training=True)", "warning"),
    ],
)
def test_a_file_and_its_folder_say_what_a_literal_is_for(path, call, severity):
    """A flag that is left out is meant only where the file itself is named after Monte Carlo dropout."""
    assert severities(layer(f"y = {call}"), path) == [severity]
