"""How fast is dropout in compiled code?

Functions and models are compiled by `torch.compile` (inductor), which fuses PyTorch's dropout with its neighbours. The
ratio says how many times faster the code with dropkit is; in the rows of 256 elements it is dropkit's time as a
multiple of PyTorch's, and in the last row the number of bytes that dropkit adds to what is saved for backward.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from side_by_side import Row, faster, relative, threads
from torch import Tensor
from transformer import encoder_of, training

import dropkit
from dropkit.functional import dropout

Function = Callable[..., Tensor]


def rows() -> list[Row]:
    table = []
    for number in (1, 2):
        torch.compiler.reset()
        with threads(number):
            table += [*large(number), small(number), transformer(number)]
    return [*table, saved_bytes()]


def chain(dropout: Function) -> Function:
    return torch.compile(lambda x, residual: dropout(torch.relu(x), 0.1) + residual, fullgraph=True)


def large(number: int) -> list[Row]:
    x, residual, upstream = (torch.randn(2**22) for _ in range(3))
    ours, theirs = chain(dropout), chain(F.dropout)
    case = f"relu, dropout, add, 2**22 elements, threads: {number}"
    forward = faster(case, lambda: ours(x, residual), lambda: theirs(x, residual), ">= 6", runs=7)

    leaf = x.clone().requires_grad_()

    def step(function: Function) -> None:
        torch.autograd.grad(function(leaf, residual), leaf, upstream)

    # It has no target: most of the time goes into the mask of relu, which the compiler saves.
    return [forward, faster(f"{case}, and backward", lambda: step(ours), lambda: step(theirs), runs=7)]


def small(number: int) -> Row:
    x = torch.randn(256)
    ours, theirs = (torch.compile(lambda x, f=f: f(x, 0.1), fullgraph=True) for f in (dropout, F.dropout))
    return relative(f"256 elements, threads: {number}", lambda: ours(x), lambda: theirs(x), "<= 1.2", runs=41)


def transformer(number: int) -> Row:
    """Time each side in a process of its own: `install` makes a process compile all its functions again."""
    with training_process(True, number) as ours, training_process(False, number) as theirs:
        case = f"training step of the transformer encoder under install, threads: {number}"
        return faster(case, ours, theirs, ">= 1.3", runs=11)


@contextmanager
def training_process(install: bool, number: int) -> Iterator[Callable[[], object]]:
    """Yield a function that makes another process take one training step, and waits for it."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_train, args=(there, install, number), daemon=True)
    process.start()

    def step() -> object:
        here.send(None)
        return here.recv()

    step()  # compiles
    yield step
    process.kill()


def _train(pipe: multiprocessing.connection.Connection, install: bool, number: int) -> None:
    torch.set_num_threads(number)
    if install:
        dropkit.install()
    step = training(torch.compile(encoder_of(0.1)), torch.randn(8, 256, 256))
    while True:
        pipe.recv()
        step()
        pipe.send(None)


def saved_bytes() -> Row:
    """Count the bytes that a compiled chain saves for backward beyond those that it saves without dropout."""
    x, residual = torch.randn(2**22, requires_grad=True), torch.randn(2**22)

    def saved(function: Function) -> int:
        torch.compiler.reset()
        node = chain(function)(x, residual).grad_fn
        while not hasattr(node, "saved_tensors"):
            node = node.next_functions[0][0]
        return sum(tensor.nbytes for tensor in node.saved_tensors)

    without = saved(lambda x, p: x)
    ours, theirs = saved(dropout) - without, saved(F.dropout) - without
    return Row("bytes saved for backward by dropout, 2**22 elements", f"{ours} B", f"{theirs} B", ours, "<= 16")
