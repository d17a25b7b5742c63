"""Every rule on its own examples: an audit finds the bad one if a run can show it, and never the good one."""

import warnings

import pytest
from torch import nn

import dropkit
from dropkit.rules import RULES

EXAMPLES = [(rule, example) for rule in RULES for example in rule.examples]
IDS = [f"{rule.code}-{index}" for rule in RULES for index, _ in enumerate(rule.examples)]


def last_call(source):
    """The model that a program called last, and what with."""
    calls, depth = [], []

    def enter(module, args, kwargs):
        if not depth:
            calls.append((module, args, kwargs))
        depth.append(module)

    def leave(*_):
        depth.pop()

    hooks = (
        nn.modules.module.register_module_forward_pre_hook(lambda module, args: enter(module, args, {})),
        nn.modules.module.register_module_forward_hook(leave, always_call=True),
    )
    try:
        exec(compile(source, "example.py", "exec"), {"__name__": "example"})
    finally:
        for hook in hooks:
            hook.remove()
    # Checkpoints call parts of a model again, on their own.
    inner = {id(part) for model, *_ in calls for part in model.modules() if part is not model}
    return [call for call in calls if id(call[0]) not in inner][-1]


def audited(source):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, args, kwargs = last_call(source)
        return dropkit.audit(model, *args, **kwargs)


@pytest.mark.parametrize(("rule", "example"), EXAMPLES, ids=IDS)
def test_the_auditor_finds_the_bad_example_and_not_the_good(rule, example):
    if rule.code == "DRP405":
        pytest.skip(example.unseen)

    bad, good = (audited(source) for source in (example.bad, example.good))

    assert (rule.code in {finding.code for finding in bad.findings}) == (not example.unseen)
    assert rule.code not in {finding.code for finding in good.findings}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_every_rule_sees_runs_or_says_why_not(rule):
    assert (rule.check_trace is None) == all(example.unseen for example in rule.examples)
    assert rule.check_source is not None or rule.check_trace is not None
