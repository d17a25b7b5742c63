"""How long does an audit take?

`dropkit.audit(model, batch)` is compared with one training step without the optimizer and one evaluation of the same
model. The ratio is the audit's time as a multiple of theirs: lower is better. An audit runs the step at least twice,
and repeats short ones for 0.3 s, to tell the share of time that dropout takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from helpers.torchvision_import import import_torchvision
from side_by_side import Row, relative
from torch import nn

import dropkit


class Classifier(nn.Module):
    """An LSTM that classifies sequences of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.drop = nn.Embedding(10_000, 256), nn.Dropout(0.2)
        self.lstm = nn.LSTM(256, 256, 2, batch_first=True, dropout=0.2)
        self.head = nn.Linear(256, 2)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.drop(self.lstm(self.drop(self.embed(tokens)))[0][:, -1]))


def rows() -> list[Row]:
    images, tokens = torch.randn(8, 3, 224, 224), torch.randint(10_000, (8, 256))
    return [
        row("ResNet-26 with DropBlock and DropPath, 8 images", resnet(), images),
        row("ViT-Tiny, 8 images", vit(), images),
        row("BERT, 4 layers of 768, 8 x 256 tokens", bert(), tokens),
        row("GPT-2, 4 layers of 768, 8 x 256 tokens", gpt(), tokens),
        row("LSTM classifier, 8 x 256 tokens", Classifier(), tokens, target=""),
    ]


def row(case: str, model: nn.Module, inputs: torch.Tensor, target: str = "< 3") -> Row:
    return relative(case, lambda: dropkit.audit(model, inputs), steps(model, inputs), target, runs=5)


def steps(model: nn.Module, inputs: torch.Tensor) -> Callable[[], None]:
    """Return a function that takes one training step without the optimizer, and one evaluation."""

    def run() -> None:
        model.train()
        output: Any = model(inputs)
        output = output if isinstance(output, torch.Tensor) else output[0]
        output.sum().backward()
        model.zero_grad()
        model.eval()
        with torch.no_grad():
            model(inputs)
        model.train()

    return run


def timm(name: str, **options: Any) -> nn.Module:
    import_torchvision()
    import timm

    return timm.create_model(name, **options)


def resnet() -> nn.Module:
    return timm("resnet26", drop_rate=0.2, drop_path_rate=0.1, drop_block_rate=0.1)


def vit() -> nn.Module:
    rates = dict.fromkeys(("drop_rate", "attn_drop_rate", "proj_drop_rate", "pos_drop_rate", "drop_path_rate"), 0.1)
    return timm("vit_tiny_patch16_224", **rates)


def bert() -> nn.Module:
    import_torchvision()
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig(num_hidden_layers=4))


def gpt() -> nn.Module:
    import_torchvision()
    from transformers import GPT2Config, GPT2Model

    return GPT2Model(GPT2Config(n_layer=4))
