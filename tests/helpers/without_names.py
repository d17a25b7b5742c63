"""Use features of dropkit on a torch that lacks private names: `python without_names.py NAME,NAME=FEATURE,... ...`.

Prints a line of JSON for each argument: feature -> "works" or the error; all features if none are given. Names are
hidden only from `dropkit.torch_private`; torch itself still has them. Each argument runs in a process of its own,
forked from one that has imported torch.
"""

import json
import os
import pkgutil
import sys
import traceback
import warnings

import torch
import torch._dynamo
import torch._inductor.lowering
import torch._inductor.virtualized
import torch.fx.experimental.proxy_tensor


def eager():
    from dropkit import nn

    x = torch.ones(64, requires_grad=True)
    output = nn.Dropout(0.5)(x)
    output.sum().backward()
    assert torch.equal(x.grad, output)
    nn.Dropout(0.5)(torch.ones(64))
    nn.Dropout(0.5, inplace=True)(torch.ones(64, requires_grad=True) * 1)
    nn.Dropout2d(0.5)(torch.ones(2, 3, 4, 4))


def is_dropout(output):
    """Whether this is a tensor of ones after a dropout of 0.5."""
    return set(output.unique().tolist()) == {0.0, 2.0}


def compiled():
    from dropkit.functional import dropout

    x = torch.ones(64, requires_grad=True)
    output = torch.compile(dropout, backend="aot_eager", fullgraph=True)(x)
    output.sum().backward()
    assert is_dropout(output)
    assert torch.equal(x.grad, output)


def exported():
    from dropkit import nn

    program = torch.export.export(nn.Dropout(0.5), (torch.ones(64),), strict=False)
    assert is_dropout(program.module()(torch.ones(64)))


def lowered():
    from dropkit.ops import inductor

    inductor.prepare()


def transformed():
    from dropkit.functional import dropout

    x = torch.ones(3, 64)
    assert is_dropout(torch.func.vmap(dropout, randomness="different")(x))
    gradient = torch.func.grad(lambda x: dropout(x, 0.5, key=1).sum())(x)
    assert torch.equal(gradient, dropout(x, 0.5, key=1))
    _, tangent = torch.func.jvp(lambda x: dropout(x, 0.5, key=1), (x,), (x,))
    assert torch.equal(tangent, gradient)


def nested():
    from dropkit.functional import dropout

    for layout in (torch.jagged, torch.strided):
        x = torch.nested.nested_tensor([torch.ones(2, 40), torch.ones(3, 40)], layout=layout)
        assert is_dropout(torch.cat([component.flatten() for component in dropout(x).unbind()]))


def fx():
    from dropkit import nn

    assert is_dropout(torch.fx.symbolic_trace(torch.nn.Sequential(nn.Dropout(0.5)))(torch.ones(64)))


def installed():
    import dropkit
    from dropkit.functional import dropout

    before = torch.nn.functional.dropout(torch.ones(64))
    with dropkit.installed():
        torch.manual_seed(0)
        output = torch.nn.functional.dropout(torch.ones(64))
        assert torch.equal(torch.nn.functional.dropout(torch.ones(3), 0.5, False), torch.ones(3))
        torch.native_dropout(torch.ones(3), 0.5, True)
    torch.manual_seed(0)
    assert torch.equal(output, dropout(torch.ones(64)))
    assert is_dropout(before)


def model():
    layers = torch.nn
    return layers.Sequential(layers.Linear(64, 64), layers.Dropout(0.5), layers.Linear(64, 3))


def monte_carlo():
    import dropkit

    dropkit.mc.predict(model(), torch.ones(4, 64), 4, task="classification")


def audited():
    import dropkit

    report = dropkit.audit(model(), torch.ones(4, 64))
    assert [site.p for site in report.sites] == [0.5]


FEATURES = (eager, transformed, compiled, exported, lowered, nested, fx, installed, monte_carlo, audited)


def without(names, features):
    """The outcomes of features if `names` are missing."""
    find = pkgutil.resolve_name

    def lacking(path):
        if path in names:
            raise AttributeError(path)
        return find(path)

    pkgutil.resolve_name = lacking
    outcomes = {}
    for feature in features:
        try:
            feature()
        except Exception:
            outcomes[feature.__name__] = traceback.format_exc()
        else:
            outcomes[feature.__name__] = "works"
    return outcomes


if __name__ == "__main__":
    # Import here what compilers import at their first call. Autograd must not run before the fork.
    torch.compile(torch.sin, backend="aot_eager")(torch.ones(3))
    torch.export.export(torch.nn.Linear(1, 1), (torch.ones(1, 1),), strict=False)
    for argument in sys.argv[1:]:
        names, _, asked = argument.partition("=")
        features = [feature for feature in FEATURES if not asked or feature.__name__ in asked.split(",")]
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                outcomes = without(names.split(","), features)
            slow = [str(each.message) for each in caught if type(each.message).__name__ == "SlowTorchWarning"]
            print(json.dumps({"outcomes": outcomes, "warnings": slow}))
            sys.stdout.flush()
            os._exit(0)
        os.waitpid(child, 0)
