"""A program with one finding, and `dropkit check` run on it in this process."""

import errno
import json
import os

from click.testing import CliRunner

from dropkit.cli import _group

BAD = """\
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.5)
"""
LINE = BAD.splitlines()[-1]
GOOD = BAD.replace("0.5)", "0.5, training=self.training)")
SECRET = "what the user had\n"


def dropkit(*arguments, input=None):
    """Run `dropkit check`; return its exit code, standard output and standard error."""
    command = ["check", *map(str, arguments)]
    result = CliRunner().invoke(_group, command, input=input, standalone_mode=False, catch_exceptions=False)
    return result.return_value, result.stdout, result.stderr


def codes(result):
    return [finding.code for finding in result.findings]


def notebook(*cells, **more):
    document = {
        "cells": [
            {"cell_type": kind, "metadata": {}, "source": source.splitlines(keepends=True)} for kind, source in cells
        ],
        "metadata": more,
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()


def outside(project):
    """The contents of the files beside the project."""
    beside = project.parent
    paths = [beside / "victim", *sorted((beside / "elsewhere").rglob("*"))]
    return {str(path): path.read_bytes() for path in paths}


def link(path, target):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def disk_is_full(handle):
    """Stands for os.fsync."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
