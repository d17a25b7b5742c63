"""Functional dropout with `training=True`: it is on in evaluation, too.

Predictions differ from call to call after `model.eval()`, and are worse than the model is, without a warning. A literal
`training=True` may be meant, as in Monte Carlo dropout, but nothing here says so. If it is not meant, pass
`training=self.training`. If it is, say so: by a comment (`# Monte Carlo dropout: also on in evaluation`), by a name
(`MCDropout`, `Prenet`, `BayesianHead`), or by `# dropkit: always-on`.

Where a name or a comment says so, the severity is info: names of the class, of the method, in the statement
(`prenet_out = ...`, `self.mc_p`), of classes of the file that use this one, of the file and its folder. So it is in a
file that runs a model several times on one input and averages. A literal True beside a call that follows the mode is
DRP101.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath

from dropkit.diagnostics import Severity
from dropkit.lint.semantic.always_on import any_name_says
from dropkit.lint.semantic.dropout_calls import DropoutCall, DropoutForm, dropout_calls
from dropkit.lint.semantic.edits import pass_training
from dropkit.lint.semantic.expressions import literal
from dropkit.lint.semantic.identifiers import Vocabulary
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.noise import draws_noise
from dropkit.lint.semantic.repeated_passes import averages_passes
from dropkit.lint.semantic.training_flag import (
    depends_on_mode,
    is_flag,
    is_in_one_mode_method,
    owners_of_gated,
    runs_in_both_modes,
)
from dropkit.rules.rule import Example, Rule, Violation, unless_intended

# Names of what is random by design. A name alone is weak evidence, but so is a literal True.
_PURPOSE = Vocabulary(
    r"bayes\w*|epistemic|uncertain\w*|always|stochastic|noise|noisy|denois\w*|corrupt\w*|augment\w*|perturb\w*|ensembl\w*"
)


def check_source(source: SourceFile) -> Iterator[Violation]:
    for dropout in dropout_calls(source, DropoutForm.FUNCTION):
        call = dropout.call
        if (
            literal(dropout.training) is True
            and _runs_in_forward(source, dropout)
            and not is_in_one_mode_method(source, call)
            and not depends_on_mode(source, call, dropout.p)
        ):
            # A literal may be meant.
            violation = Violation(call, fix=pass_training(source, dropout, safe=False))
            yield from unless_intended(source, violation, _is_named(source, dropout))


def _runs_in_forward(source: SourceFile, dropout: DropoutCall) -> bool:
    """Whether it is in a method of a Module without a flag, or in a function that only Modules call."""
    owner, function = source.owner(dropout.call), source.function(dropout.call)
    if function is None or any(is_flag(parameter.arg) for parameter in function.parameters):
        return False
    if owner is not None:
        # Beside a call that follows the mode it is DRP101.
        return owner.is_module and owner not in owners_of_gated(source)
    return function.within is None and runs_in_both_modes(source, function.name)


def _is_named(source: SourceFile, dropout: DropoutCall) -> bool:
    """Whether a name says that this is random by design, the input is noise, or this file averages several passes."""
    return (
        any_name_says(source, dropout.call, _PURPOSE.has)
        or _PURPOSE.has(PurePath(source.path).parent.name)
        or draws_noise(source, dropout.input)
        or averages_passes(source)
    )


RULE = Rule(
    code="DRP109",
    name="functional-dropout-always-on",
    message="always on, also after model.eval(): if meant, say so",
    severity=Severity.WARNING,
    check_source=check_source,
    fix="pass `training=self.training`",
    examples=(
        Example(
            """
import torch
import torch.nn.functional as F
from torch import nn


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(8, 8)
        self.output = nn.Linear(8, 2)

    def forward(self, x):
-        x = F.dropout(self.hidden(x), 0.5, training=True)  # DRP109
+        x = F.dropout(self.hidden(x), 0.5, training=self.training)
        return self.output(x)


Classifier().eval()(torch.randn(4, 8))
""",
            unseen="a run cannot tell a literal True from a flag that was left out: the audit reports both as DRP101",
        ),
    ),
)
