"""How much faster does a whole transformer train if `retrofit` leaves dropped hidden units out?

A training step (forward, mean of squares, backward) of a model as it is, with dropout by element at rates of 0.1, is
compared with that of the same model after `dropkit.retrofit(model, "FeedForward", p)`. Attention, norms and embeddings
are the same on both sides. The ratio says how many times faster the second is. BERT needs transformers.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import torch
from helpers.torchvision_import import import_torchvision
from side_by_side import Row, faster, threads
from torch import Tensor, nn

import dropkit

THREADS = 2


def rows() -> list[Row]:
    with threads(THREADS):
        return [*encoders(), *(bert() if importlib.util.find_spec("transformers") else ())]


def encoders() -> Iterator[Row]:
    layer = nn.TransformerEncoderLayer(256, 4, 1024, 0.1, "gelu", batch_first=True)
    model, x = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), torch.randn(8, 128, 256)
    for p in (0.5, 0.1):
        yield compared(f"TransformerEncoder, 2 layers of 256-1024-256, 8x128 tokens, p={p}", model, p, lambda m: m(x))


def bert() -> Iterator[Row]:
    import_torchvision()  # which transformers imports
    transformers: Any = __import__("transformers")
    config = transformers.BertConfig(
        vocab_size=1000, hidden_size=256, num_hidden_layers=2, num_attention_heads=4, intermediate_size=1024
    )
    model, ids = transformers.BertModel(config), torch.randint(1000, (8, 128))
    for p in (0.5, 0.1):
        case = f"BERT of transformers, 2 layers of 256-1024-256, 8x128 tokens, p={p}"
        yield compared(case, model, p, lambda m: m(ids).last_hidden_state)


def compared(case: str, model: nn.Module, p: float, call: Callable[[Any], Tensor]) -> Row:
    ours, theirs = copy.deepcopy(model.train()), model
    dropkit.retrofit(ours, "FeedForward", p)
    return faster(case, step(ours, call), step(theirs, call), runs=15)


def step(model: nn.Module, call: Callable[[Any], Tensor]) -> Callable[[], None]:
    def run() -> None:
        model.zero_grad()
        call(model).square().mean().backward()

    return run
