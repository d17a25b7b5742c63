"""Programs of the kinds that others write: each has a result of the right shape, or is refused in the right words."""

from __future__ import annotations

import json
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from dropkit.mc import ClassPrediction, NothingToSample, ValuePrediction, acquisition, predict
from dropkit.mc.prediction import AnyPrediction

N, LENGTH, WIDTH = 9, 6, 8
ROWS = torch.randn(N, WIDTH, generator=torch.Generator().manual_seed(0))
STEPS = torch.randn(N, LENGTH, WIDTH, generator=torch.Generator().manual_seed(1))
IMAGES = torch.randn(N, 3, 8, 8, generator=torch.Generator().manual_seed(2))
IDS = torch.randint(1, 20, (N, LENGTH), generator=torch.Generator().manual_seed(3))
MASK = (torch.arange(LENGTH) < torch.arange(N)[:, None] % 5 + 2).long()
CLASSES = torch.arange(N) % 4
TAGS = CLASSES[:, None].expand(N, LENGTH).clone()


class Model(nn.Module):
    """A backbone with dropout; a function makes what the model returns from its features."""

    def __init__(self, body: nn.Module, function: Callable[..., Any] = lambda h, **_: h) -> None:
        super().__init__()
        self.body, self.function = body, function

    def forward(self, x: Tensor, **others: Any) -> Any:
        return self.function(self.body(x), **others)


def mlp(outputs: int = 4) -> nn.Module:
    return nn.Sequential(nn.Linear(WIDTH, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, outputs))


def segmenter(classes: int = 3) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Dropout2d(0.3), nn.Conv2d(8, classes, 1))


def embedder(outputs: int = 4) -> nn.Module:
    return nn.Sequential(nn.Embedding(20, WIDTH), nn.Dropout(0.2), nn.Linear(WIDTH, outputs))


@dataclass
class ModelOutput:
    """Like an output of transformers."""

    logits: Tensor
    hidden_states: Any = None
    loss: Any = None


@dataclass
class OneField:
    prediction: Tensor


Named = namedtuple("Named", "scores state")


class Tagger(nn.Module):
    """An LSTM of packed sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.drop = nn.Embedding(20, WIDTH), nn.Dropout(0.3)
        self.lstm, self.head = nn.LSTM(WIDTH, 5, bidirectional=True, batch_first=True), nn.Linear(10, 4)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        x = pack_padded_sequence(self.drop(self.embed(ids)), lengths.cpu(), batch_first=True, enforce_sorted=False)
        out, _ = pad_packed_sequence(self.lstm(x)[0], batch_first=True, total_length=ids.shape[1])
        return self.head(self.drop(out))


class Pretrained(nn.Module):
    """Takes the arguments of transformers, and returns its outputs."""

    def __init__(self, outputs: Callable[[Tensor], Any], count: int = 4, labels: int = 4) -> None:
        super().__init__()
        self.net, self.outputs, self.config = embedder(count), outputs, SimpleNamespace(num_labels=labels)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None) -> Any:
        return self.outputs(self.net(input_ids))


class Graph(nn.Module):
    """A graph network on dense adjacency, (N, nodes, width) and (N, nodes, nodes)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.drop, self.head = nn.Linear(WIDTH, 16), nn.Dropout(0.3), nn.Linear(16, 4)

    def forward(self, x: Tensor, adjacency: Tensor) -> tuple[Tensor, Tensor]:
        h = self.drop(F.relu(adjacency @ self.first(x)))
        return self.head(h.mean(1)), h


class Seq2Seq(nn.Module):
    """torch's transformer, sequence first, as in its tutorials."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 16, 0.2)
        self.encoder, self.head = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False), nn.Linear(WIDTH, 4)

    def forward(self, src: Tensor, src_key_padding_mask: Tensor | None = None) -> Tensor:
        return self.head(self.encoder(src, src_key_padding_mask=src_key_padding_mask))


class Lightning(nn.Module):
    """Like a LightningModule: a step for the trainer, hyperparameters and a forward."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.hparams, self.loss = mlp(), {"num_classes": 4, "lr": 1e-3}, nn.CrossEntropyLoss()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, index: int) -> Tensor:
        return self.loss(self(batch[0]), batch[1])


class Siamese(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = mlp()

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return (self.net(left) - self.net(right)).pow(2).sum(1)


class Streamed(IterableDataset[Any]):
    def __iter__(self) -> Any:
        yield from zip(ROWS, CLASSES, strict=True)


class SequenceClassifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(WIDTH, 6, 2, dropout=0.4), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[1][0][-1])


class Strict(nn.Module):
    """Takes one argument, and no other names."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Hurdle(nn.Module):
    """A dropout that is an argument of the forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(WIDTH, 4)

    def forward(self, x: Tensor, rate: float = 0.2) -> Tensor:
        return self.net(F.dropout(x, rate, self.training))


@dataclass(frozen=True)
class Program:
    """A model, its inputs and the arguments of `predict`, and the shape of the mean."""

    model: Callable[[], nn.Module]
    inputs: Callable[[], Any]
    shape: Any
    arguments: dict[str, Any]


def program(model: Callable[[], nn.Module], inputs: Any, shape: Any, **arguments: Any) -> Program:
    return Program(model, inputs if callable(inputs) else lambda: inputs, shape, arguments)


def returns(function: Callable[..., Any], outputs: int = 4) -> Callable[[], nn.Module]:
    return lambda: Model(mlp(outputs), lambda h, **_: function(h))


REGRESSION: dict[str, Any] = {"task": "regression"}
GAUSSIAN: dict[str, Any] = {"task": "regression", "outputs": "mean_log_variance"}
MULTILABEL: dict[str, Any] = {"task": "multilabel"}

RUN: dict[str, Program] = {
    # Classes
    "a perceptron": program(mlp, ROWS, (N, 4)),
    "a softmax": program(returns(lambda h: h.softmax(1)), ROWS, (N, 4), outputs="probabilities"),
    "a log-softmax": program(returns(lambda h: h.log_softmax(1)), ROWS, (N, 4)),
    "one logit": program(lambda: mlp(1), ROWS, (N, 2)),
    "one sigmoid, squeezed": program(
        returns(lambda h: h.sigmoid().squeeze(1), 1), ROWS, (N, 2), outputs="probabilities"
    ),
    "a distribution over classes": program(returns(lambda h: torch.distributions.Categorical(logits=h)), ROWS, (N, 4)),
    "loss before logits": program(returns(lambda h: (h.sum(), h)), ROWS, (N, 4)),
    "a named tuple": program(returns(lambda h: Named(h, h[:1])), ROWS, (N, 4)),
    "a dataclass of one field": program(returns(OneField), ROWS, (N, 4)),
    "an ordered dict of one entry": program(returns(lambda h: OrderedDict(pred=h)), ROWS, (N, 4)),
    "a LightningModule": program(Lightning, ROWS, (N, 4)),
    "two inputs": program(Siamese, (ROWS, ROWS.flip(0)), (N,), **REGRESSION),
    "a rate as an argument": program(Hurdle, ROWS, (N, 4)),
    "a rate of 0 at training": program(
        lambda: nn.Sequential(nn.Linear(WIDTH, 4), nn.Dropout(0.0)), ROWS, (N, 4), p=0.2
    ),
    "the last layer alone": program(
        lambda: nn.Sequential(mlp(WIDTH), nn.Dropout(0.5), nn.Linear(WIDTH, 4)), ROWS, (N, 4), sites="1"
    ),
    # Pixels
    "segmentation": program(segmenter, IMAGES, (N, 8, 8, 3), class_dim=1),
    "segmentation of torchvision": program(
        lambda: Model(segmenter(), lambda h: {"out": h, "aux": h * 0}), IMAGES, (N, 8, 8, 3), class_dim=1
    ),
    "segmentation with labels": program(
        segmenter,
        IMAGES,
        (N, 8, 8, 3),
        labels=torch.arange(64).view(1, 8, 8).expand(N, 8, 8) // 16 * 85,
        ignore_index=255,
    ),
    "a mask of one channel": program(lambda: segmenter(1), IMAGES, (N, 1, 8, 8), **MULTILABEL),
    "depth": program(lambda: segmenter(1), IMAGES, (N, 1, 8, 8), **REGRESSION),
    "depth with noise": program(lambda: segmenter(2), IMAGES, (N, 1, 8, 8), **GAUSSIAN),
    "images of many sizes": program(segmenter, [IMAGES[:4], IMAGES[4:, :, :6]], (N, 8, 8, 3), class_dim=1),
    # Tokens
    "a tagger of transformers": program(
        lambda: Pretrained(ModelOutput), {"input_ids": IDS, "attention_mask": MASK}, (N, LENGTH, 4)
    ),
    "a loader of dicts": program(
        lambda: Pretrained(ModelOutput),
        lambda: DataLoader(
            [{"input_ids": i, "attention_mask": m, "labels": t} for i, m, t in zip(IDS, MASK, TAGS, strict=True)], 4
        ),
        (N, LENGTH, 4),
    ),
    "texts of many lengths": program(
        lambda: Pretrained(ModelOutput), [{"input_ids": IDS[:4]}, {"input_ids": IDS[4:, :3]}], (N, LENGTH, 4)
    ),
    "answers to questions": program(
        lambda: Pretrained(lambda h: SimpleNamespace(start_logits=h[..., 0], end_logits=h[..., 1])),
        {"input_ids": IDS},
        (N, 2, LENGTH),
    ),
    "a text classifier": program(lambda: Pretrained(lambda h: ModelOutput(h.mean(1))), {"input_ids": IDS}, (N, 4)),
    "a packed LSTM": program(Tagger, (IDS, MASK.sum(1)), (N, LENGTH, 4), class_dim=-1),
    "padding known by the tokens": program(embedder, IDS, (N, LENGTH, 4), class_dim=-1, valid=lambda ids: ids != 3),
    "one logit for each token": program(
        lambda: Model(embedder(1), lambda h: h.squeeze(-1)), IDS, (N, LENGTH), **MULTILABEL
    ),
    # Sequences first
    "a transformer, sequence first": program(Seq2Seq, STEPS.transpose(0, 1), (N, LENGTH, 4), batch_dim=1, class_dim=-1),
    "with a mask of padding": program(
        Seq2Seq,
        {"src": STEPS.transpose(0, 1), "src_key_padding_mask": MASK == 0},
        (N, LENGTH, 4),
        batch_dim={"src": 1},
        class_dim=-1,
    ),
    "a sequence classifier": program(SequenceClassifier, STEPS.transpose(0, 1), (N, 4), batch_dim=1),
    # Labels
    "labels": program(mlp, ROWS, (N, 4), **MULTILABEL),
    "labels behind a sigmoid": program(
        returns(lambda h: h.sigmoid()), ROWS, (N, 4), outputs="probabilities", **MULTILABEL
    ),
    "a distribution of labels": program(
        returns(lambda h: torch.distributions.Bernoulli(logits=h)), ROWS, (N, 4), **MULTILABEL
    ),
    # Values
    "a value": program(lambda: mlp(1), ROWS, (N, 1), **REGRESSION),
    "a value that is squeezed, in a last batch of one": program(
        returns(lambda h: h.squeeze(), 1), lambda: DataLoader(TensorDataset(ROWS), 4), (N,), **REGRESSION
    ),
    "labels of which some do not count": program(mlp, ROWS, (N, 4), valid=[[1, 1, 1, 0]] * N, **MULTILABEL),
    "many values": program(mlp, ROWS, (N, 4), **REGRESSION),
    "a forecast": program(lambda: Model(mlp(1), lambda h: h.squeeze(-1)), STEPS, (N, LENGTH), **REGRESSION),
    "mean and log variance": program(returns(lambda h: (h[:, :1], h[:, 1:]), 2), ROWS, (N, 1), **GAUSSIAN),
    "mean and softplus": program(
        returns(lambda h: (h[:, 0], F.softplus(h[:, 1])), 2),
        ROWS,
        (N,),
        task="regression",
        outputs="mean_variance",
    ),
    "a normal distribution": program(
        returns(lambda h: torch.distributions.Normal(h[:, 0], h[:, 1].exp()), 2), ROWS, (N,), **GAUSSIAN
    ),
    "an autoencoder": program(
        lambda: Model(mlp(WIDTH), lambda h: {"reconstruction": h, "latent": h[:, :2]}),
        ROWS,
        {"reconstruction": (N, WIDTH)},
        task={"reconstruction": "regression"},
    ),
    # Heads
    "two heads by name": program(
        returns(lambda h: {"age": h[:, :1], "sex": h[:, 1:3]}),
        ROWS,
        {"age": (N, 1), "sex": (N, 2)},
        task={"age": "regression", "sex": "classification"},
    ),
    "two heads by number": program(
        returns(lambda h: (h[:, :1], h[:, 1:])),
        ROWS,
        {0: (N, 1), 1: (N, 3)},
        task={0: "regression", 1: "multilabel"},
    ),
    "tags and the class of the text": program(
        lambda: Pretrained(lambda h: SimpleNamespace(intent_logits=h.mean(1), slot_logits=h)),
        {"input_ids": IDS, "attention_mask": MASK},
        {"intent_logits": (N, 4), "slot_logits": (N, LENGTH, 4)},
        task={"intent_logits": "classification", "slot_logits": "classification"},
    ),
    "a graph, with its embeddings": program(Graph, (STEPS, STEPS @ STEPS.mT), (N, 4)),
    # Inputs
    "a frame": program(mlp, lambda: pd.DataFrame(ROWS.double().numpy()), (N, 4)),
    "a frame in a mapping": program(lambda: Model(mlp()), lambda: {"x": pd.DataFrame(ROWS.double().numpy())}, (N, 4)),
    "a series": program(
        lambda: nn.Sequential(nn.Unflatten(0, (-1, 1)), nn.Linear(1, 4), nn.Dropout()),
        lambda: pd.Series(np.arange(9.0)),
        (N, 4),
    ),
    "a float64 array": program(mlp, lambda: ROWS.double().numpy(), (N, 4)),
    "an array of float16 for a model of bfloat16": program(
        lambda: mlp().bfloat16(), lambda: ROWS.half().numpy(), (N, 4)
    ),
    "a frame of whole numbers": program(mlp, lambda: pd.DataFrame({c: range(N) for c in "abcdefgh"}), (N, 4)),
    "a frame of tokens": program(embedder, lambda: pd.DataFrame(IDS.numpy()), (N, LENGTH, 4), class_dim=-1),
    "a frame with gaps": program(
        mlp, lambda: pd.DataFrame({c: pd.array([None, *range(1, N)], dtype="Int64") for c in "abcdefgh"}), (N, 4)
    ),
    "a data set of dicts with labels and numbers": program(
        Strict,
        lambda: [{"x": ROWS[:4], "target": CLASSES[:4], "number": CLASSES[:4]}, {"x": ROWS[4:], "target": CLASSES[4:]}],
        (N, 4),
    ),
    "a data set": program(mlp, lambda: TensorDataset(ROWS, CLASSES), (N, 4)),
    "a streamed data set": program(mlp, Streamed, (N, 4)),
    "a generator of batches": program(mlp, lambda: (part for part in ROWS.split(4)), (N, 4)),
    "a list of batches": program(mlp, lambda: list(ROWS.split(4)), (N, 4)),
    "a loader with a batch of three": program(
        mlp, lambda: DataLoader(TensorDataset(ROWS, CLASSES, CLASSES), 4), (N, 4)
    ),
    "a loader with prepare_batch": program(
        mlp, lambda: DataLoader(TensorDataset(CLASSES, ROWS), 4), (N, 4), prepare_batch=lambda batch: batch[1]
    ),
}


@pytest.mark.parametrize("name", RUN)
def test_a_program_has_a_result(name: str) -> None:
    """Inputs come first, classes last; samples differ, and a seed gives the same numbers again, which can be shown."""
    case = RUN[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = case.model().eval()

    r, again = (predict(model, case.inputs(), 6, seed=0, progress=False, **case.arguments) for _ in range(2))

    heads = r if isinstance(r, dict) else {None: r}
    shapes = case.shape if isinstance(case.shape, dict) else {None: case.shape}
    assert {head: tuple(part.mean.shape) for head, part in heads.items()} == shapes
    for head, part in heads.items():
        other = again[head] if head is not None else again
        assert torch.equal(part.mean.nan_to_num(-1), other.mean.nan_to_num(-1))
        assert part.variance.nan_to_num(0).max() > 0 or part.valid is not None
        assert len(part) == N
        shows_itself(part)
        is_used(part)


def shows_itself(r: AnyPrediction) -> None:
    """As a table, in a notebook and as JSON, without tensors, and without gaps but for those of the inputs."""
    for text in (str(r), r._repr_html_()):
        assert "tensor(" not in text
    has_gaps = r.valid is None and bool(r.mean.isnan().any())
    assert has_gaps or "nan" not in str(r).split("least certain")[0]
    assert json.loads(json.dumps(r.to_dict()))["num_samples"] == 6


def is_used(r: AnyPrediction) -> None:
    """Conformal sets or intervals, and scores for active learning, have the shapes of the prediction."""
    if isinstance(r, ValuePrediction):
        low, high = r.conformal(r.mean)(r)
        assert low.shape == high.shape == r.mean.shape
        return
    truth = r.label if isinstance(r, ClassPrediction) else torch.ones_like(r.mean)
    assert r.conformal(truth)(r).shape == r.mean.shape
    assert acquisition.bald(r).shape == (N,)


def refused(model: Callable[[], nn.Module], inputs: Any, error: type[Exception], words: str, **arguments: Any) -> Any:
    return program(model, inputs, (error, words), **arguments)


REFUSED: dict[str, Program] = {
    "labels as classes": refused(returns(lambda h: h.sigmoid()), ROWS, ValueError, 'give task="multilabel"'),
    "classes as labels": refused(
        returns(lambda h: h.softmax(1)), ROWS, ValueError, 'give task="classification"', **MULTILABEL
    ),
    "tokens without a dimension": refused(embedder, IDS, ValueError, "class_dim must be given"),
    "sequence first": refused(
        SequenceClassifier, STEPS.transpose(0, 1), ValueError, "give batch_dim=1 where inputs lie in the second"
    ),
    "boxes": refused(lambda: Model(mlp(), lambda h: [{"boxes": row} for row in h]), ROWS, TypeError, "sampling()"),
    "several entries": refused(
        lambda: Model(mlp(), lambda h: {"age": h, "sex": h}), ROWS, TypeError, 'task={"age": ..., "sex": ...}'
    ),
    "a distribution of values": refused(
        returns(lambda h: torch.distributions.Normal(h, 1.0)), ROWS, TypeError, 'outputs="mean_variance"', **REGRESSION
    ),
    "words in a frame": refused(mlp, lambda: pd.DataFrame({"city": ["Bonn", "Rom"]}), TypeError, "column 'city'"),
    "texts": refused(mlp, ["a text", "another"], TypeError, "a tensor with a batch dimension, got str"),
    "packed sequences": refused(mlp, lambda: pack_sequence([STEPS[0], STEPS[1]]), TypeError, "PackedSequence"),
    "a number": refused(mlp, 3, TypeError, "inputs must be a tensor, an array, a frame"),
    "true as the valid places": refused(mlp, ROWS, ValueError, "valid must be a tensor, the name of an", valid=True),
    "no dropout": refused(lambda: nn.Linear(WIDTH, 4), ROWS, NothingToSample, "no dropout is active"),
    "a scripted model": refused(lambda: torch.jit.script(mlp()), ROWS, TypeError, "script"),
    "a wrong name": refused(mlp, ROWS, ValueError, "sites must be names of modules", sites="head"),
    "a wrong option": refused(mlp, ROWS, TypeError, "unexpected keyword argument 'num_samples'", num_samples=5),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
@pytest.mark.parametrize("name", REFUSED)
def test_a_program_is_refused_in_words_that_help(name: str) -> None:
    """The error says what is wanted, or what to give."""
    case = REFUSED[name]
    error, words = case.shape

    with pytest.raises(error) as raised:
        predict(case.model().eval(), case.inputs(), 6, seed=0, progress=False, **case.arguments)

    assert words in str(raised.value)
