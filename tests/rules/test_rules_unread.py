"""What uses no layer and no rate: showing, copying and pickling an object, and names that begin otherwise."""

import textwrap

import pytest
from helpers.aliases import aliases_change_no_finding  # noqa: F401

from dropkit.lint.engine.check_file import check
from dropkit.lint.semantic.dropout_names import may_match
from dropkit.lint.semantic.model import read
from dropkit.lint.semantic.source_text import Text
from dropkit.rules import RULES

HEAD = "import copy\nimport torch\nimport torch.nn.functional as F\nfrom torch import nn\n"


def found(source):
    data = (HEAD + source).encode()
    findings = check(read("net.py", Text(data)), RULES) if may_match(data) else []
    return [finding.code for finding in findings if finding.severity.value != "info"]


def net(made, method="", argument="rate=0.1", forward="return self.fc(x)"):
    return (
        f"class Net(nn.Module):\n    def __init__(self, {argument}):\n        super().__init__()\n"
        f"        self.fc = nn.Linear(3, 3)\n{textwrap.indent(made, ' ' * 8)}\n"
        f"    def forward(self, x):\n{textwrap.indent(forward, ' ' * 8)}\n{textwrap.indent(method, ' ' * 4)}\n"
    )


MADE = {
    "DRP202": "self.drop = nn.Dropout(0.5)",
    "DRP203": "self.dropout_rate = drop_rate",
}
SHOWN = [
    "def extra_repr(self):\n    return '{dropout_rate}'.format(**self.__dict__)",
    "def __repr__(self):\n    return f'{type(self).__name__}({self.__dict__})'",
    "def __repr__(self):\n    return ', '.join(repr(m) for m in self.children())",
    "def __str__(self):\n    return str(vars(self))",
    "def extra_repr(self):\n    return summary(self)",
    "def __getstate__(self):\n    return self.__dict__.copy()",
    "def __setstate__(self, state):\n    self.__dict__.update(state)",
    "def __deepcopy__(self, memo):\n    return copy_of(self.__dict__, memo)",
    "def __reduce__(self):\n    return Net, tuple(self.__dict__.values())",
]
USED = [
    "def extra(self, x):\n    return run(self.__dict__, x)",
    "def apply_all(self, x):\n    for child in self.children():\n        x = child(x)\n    return x",
    "def config(self):\n    return make(self)",
    "def options(self):\n    return vars(self)",
]


@pytest.mark.parametrize("method", SHOWN)
@pytest.mark.parametrize("code", MADE)
def test_showing_or_copying_an_object_uses_nothing_of_it(code, method):
    arguments = "drop_rate" if code == "DRP203" else ""

    assert found(net(MADE[code], method, arguments)) == [code]


@pytest.mark.parametrize("method", USED)
@pytest.mark.parametrize("code", MADE)
def test_any_other_code_that_gets_the_object_may_use_it(code, method):
    assert not found(net(MADE[code], method, "drop_rate" if code == "DRP203" else ""))


LOOP = "for i in range(3):\n    x = {}(x)\nreturn x"
READS = {
    "format": "getattr(self, 'conv{}'.format(i))",
    "f-string": "getattr(self, f'conv{i}')",
    "percent": "getattr(self, 'conv%d' % i)",
    "sum": "getattr(self, 'conv' + str(i))",
    "default": "getattr(self, f'conv{i}', None)",
}


@pytest.mark.parametrize("read_", READS.values(), ids=READS)
def test_a_name_made_at_run_time_reads_what_begins_like_it(read_):
    other, same = MADE["DRP202"], MADE["DRP202"].replace("drop", "conv_drop", 1)

    assert found(net(other, forward=LOOP.format(read_))) == ["DRP202"]
    assert not found(net(same, forward=LOOP.format(read_)))


@pytest.mark.parametrize(
    "lines",
    [
        "name = f'conv{x.dim()}'\nreturn getattr(self, name)(x)",
        "name = 'conv%d' % x.dim()\nif x.dim() > 3:\n    name = 'fc'\nreturn getattr(self, name)(x)",
    ],
)
def test_a_name_in_a_local_variable_is_followed(lines):
    assert found(net(MADE["DRP202"], forward=lines)) == ["DRP202"]
    assert not found(net(MADE["DRP202"], forward=lines.replace("'conv", "'dr").replace("f'dr", "f'drop")))


@pytest.mark.parametrize("name", ["self.name", "x.names[0]", "prefix + '_conv'", "f'{x}conv'", "'{}_conv'.format(x)"])
def test_a_name_that_begins_with_anything_may_read_any_layer(name):
    assert not found(net(MADE["DRP202"], forward=f"prefix = 'drop'\nreturn getattr(self, {name})(x)"))


MISSPELT = ["droput", "drouput", "dropuot", "dorpout", "drop_out", "droupout", "dropput", "att_droput", "droput_rate"]


@pytest.mark.parametrize("name", [*MISSPELT, "attn_drop", "drop", "proj_drop", "drop1", "drop_p"])
@pytest.mark.parametrize("stored", [True, False], ids=["stored", "ignored"])
def test_a_rate_of_any_spelling_is_a_rate(name, stored):
    """Also in a file without any other word of dropout."""
    made = f"self.{name} = {name}" if stored else "self.width = 3"

    assert found(net(made, argument=f"{name}=0.1")) == ["DRP203"]


@pytest.mark.parametrize("name", ["output", "dropped", "readout", "drop_last", "backdrop_color", "input", "rollout"])
def test_names_of_other_things_are_no_rates(name):
    assert not found(net("self.width = 3", argument=f"{name}=0.1"))
