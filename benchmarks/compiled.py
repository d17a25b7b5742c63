"""What does dropout cost in compiled code, against torch's, which the compiler fuses?"""

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
    return [*table, kept_bytes()]


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

    # Without a target: most of it is the mask that the compiler keeps of relu.
    return [forward, faster(f"{case}, and backward", lambda: step(ours), lambda: step(theirs), runs=7)]


def small(number: int) -> Row:
    x = torch.randn(256)
    ours, theirs = (torch.compile(lambda x, f=f: f(x, 0.1), fullgraph=True) for f in (dropout, F.dropout))
    return relative(f"256 elements, threads: {number}", lambda: ours(x), lambda: theirs(x), "<= 1.2", runs=41)


def transformer(number: int) -> Row:
    """Each in a process of its own: installing makes every compiled function of a process be compiled again."""
    with elsewhere(True, number) as ours, elsewhere(False, number) as theirs:
        case = f"training step of the transformer encoder under install, threads: {number}"
        return faster(case, ours, theirs, ">= 1.3", runs=11)


@contextmanager
def elsewhere(install: bool, number: int) -> Iterator[Callable[[], object]]:
    """A call that makes another process take one training step, and waits for it."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_steps, args=(there, install, number), daemon=True)
    process.start()

    def step() -> object:
        here.send(None)
        return here.recv()

    step()  # compiles
    yield step
    process.kill()


def _steps(pipe: multiprocessing.connection.Connection, install: bool, number: int) -> None:
    torch.set_num_threads(number)
    if install:
        dropkit.install()
    step = training(torch.compile(encoder_of(0.1)), torch.randn(8, 256, 256))
    while True:
        pipe.recv()
        step()
        pipe.send(None)


def kept_bytes() -> Row:
    """Bytes kept for backward by a compiled chain, less those that it keeps with nothing dropped."""
    x, residual = torch.randn(2**22, requires_grad=True), torch.randn(2**22)

    def kept(function: Function) -> int:
        torch.compiler.reset()
        node = chain(function)(x, residual).grad_fn
        while not hasattr(node, "saved_tensors"):
            node = node.next_functions[0][0]
        return sum(tensor.nbytes for tensor in node.saved_tensors)

    nothing = kept(lambda x, p: x)
    ours, theirs = kept(dropout) - nothing, kept(F.dropout) - nothing
    return Row("bytes kept for backward by dropout, 2**22 elements", f"{ours} B", f"{theirs} B", ours, "<= 16")
