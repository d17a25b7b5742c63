"""DRP406 and DRP403: dropout on the output of a model in many forms, and dropout that is not on it."""

import pytest

from dropkit.lint.engine.check_file import check
from dropkit.lint.semantic.model import read
from dropkit.lint.semantic.source_text import Text
from dropkit.rules import RULES

CODES = ("DRP403", "DRP406")
HEAD = """\
from collections import OrderedDict

import pytorch_lightning as pl
import torch
import torch.nn as nn
import torch.nn.functional as F

"""


def m(made, applied, name="Net", args="self, x", ia="self, d, num_classes, p"):
    """A Module with these statements in its constructor and its forward."""
    made, applied = ("".join(f"        {line}\n" for line in part.split("\n")) for part in (made, applied))
    head = f"class {name}(nn.Module):\n    def __init__({ia}):\n        super().__init__()\n"
    return f"{head}{made}\n    def forward({args}):\n{applied}"


BAD = {
    "a function on ten digits": """
class Net(nn.Module):
    def __init__(self):
        super(Net, self).__init__()
        self.conv1 = nn.Conv2d(1, 10, kernel_size=5)
        self.fc1 = nn.Linear(320, 50)
        self.fc2 = nn.Linear(50, 10)

    def forward(self, x):
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = x.view(-1, 320)
        x = F.relu(self.fc1(x))
        x = F.dropout(self.fc2(x), training=self.training)
        return x
""",
    "the end of a classifier in a row": """
class ConvNet(nn.Module):
    def __init__(self, n_out=10):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(16, 64),
            nn.ReLU(),
            nn.Linear(64, n_out),
            nn.Dropout(0.5),
        )

    def forward(self, x):
        return self.classifier(self.features(x))
""",
    "a probability a line later": """
class SentimentModel(nn.Module):
    def __init__(self, vocab, emb, hid, drop):
        super().__init__()
        self.emb = nn.Embedding(vocab, emb)
        self.lstm = nn.LSTM(emb, hid, batch_first=True)
        self.fc = nn.Linear(hid, 1)
        self.drop = nn.Dropout(drop)

    def forward(self, ids):
        out, _ = self.lstm(self.emb(ids))
        out = self.fc(out[:, -1])
        out = self.drop(out)
        return torch.sigmoid(out)
""",
    "a sigmoid before": """
class BinaryClassifier(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.l1 = nn.Linear(d, 32)
        self.l2 = nn.Linear(32, 1)
        self.dropout = nn.Dropout(0.3)

    def forward(self, x):
        x = torch.relu(self.l1(x))
        return self.dropout(torch.sigmoid(self.l2(x)))
""",
    "a sigmoid layer before": """
class MultiLabel(nn.Module):
    def __init__(self, d, num_labels):
        super().__init__()
        self.out = nn.Linear(d, num_labels)
        self.act = nn.Sigmoid()
        self.dropout = nn.Dropout(0.3)

    def forward(self, x):
        probs = self.act(self.out(x))
        probs = self.dropout(probs)
        return probs
""",
    "a tagger": """
class LSTMTagger(nn.Module):
    def __init__(self, hidden_dim, tagset_size, p):
        super().__init__()
        self.lstm = nn.LSTM(100, hidden_dim)
        self.hidden2tag = nn.Linear(hidden_dim, tagset_size)
        self.drop = nn.Dropout(p)

    def forward(self, sentence):
        lstm_out, _ = self.lstm(sentence)
        tag_space = self.hidden2tag(lstm_out.view(len(sentence), -1))
        return F.log_softmax(self.drop(tag_space), dim=1)
""",
    "words of a language model": """
class LanguageModel(nn.Module):
    def __init__(self, ntoken, d_model, dropout=0.1):
        super().__init__()
        self.encoder = nn.Embedding(ntoken, d_model)
        self.body = nn.GRU(d_model, d_model)
        self.decoder = nn.Linear(d_model, ntoken)
        self.dropout = nn.Dropout(dropout)

    def forward(self, src):
        hidden, _ = self.body(self.encoder(src))
        logits = self.dropout(self.decoder(hidden))
        return logits, hidden
""",
    "a list of layers": """
class MLPClassifier(nn.Module):
    def __init__(self, dims, num_classes, dropout):
        super().__init__()
        layers = []
        for a, b in zip(dims[:-1], dims[1:]):
            layers += [nn.Linear(a, b), nn.ReLU(), nn.Dropout(dropout)]
        layers.append(nn.Linear(dims[-1], num_classes))
        layers.append(nn.Dropout(dropout))
        self.net = nn.Sequential(*layers)

    def forward(self, x):
        return self.net(x)
""",
    "pixels of classes": """
class SegmentationNet(nn.Module):
    def __init__(self, n_classes):
        super().__init__()
        self.encoder = nn.Conv2d(3, 64, 3, padding=1)
        self.final = nn.Conv2d(64, n_classes, 1)
        self.drop = nn.Dropout2d(0.1)

    def forward(self, x):
        return self.drop(self.final(F.relu(self.encoder(x))))
""",
    "named steps": """
class Model(nn.Module):
    def __init__(self, d, num_classes):
        super().__init__()
        self.head = nn.Sequential(OrderedDict([
            ("fc", nn.Linear(d, num_classes)),
            ("drop", nn.Dropout(0.5)),
        ]))

    def forward(self, x):
        return self.head(x)
""",
    "in the step of training": """
class LitClassifier(pl.LightningModule):
    def __init__(self, backbone, num_classes, p=0.5):
        super().__init__()
        self.backbone = backbone
        self.fc = nn.Linear(512, num_classes)
        self.dropout = nn.Dropout(p)

    def forward(self, x):
        return self.fc(self.backbone(x))

    def training_step(self, batch, batch_idx):
        x, y = batch
        logits = self.dropout(self.fc(self.backbone(x)))
        loss = F.cross_entropy(logits, y)
        return loss
""",
    "a loss of transformers": """
class BertForSequenceTagging(nn.Module):
    def __init__(self, bert, config):
        super().__init__()
        self.bert = bert
        self.num_labels = config.num_labels
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, input_ids, labels=None):
        hidden = self.bert(input_ids)[0]
        logits = self.classifier(hidden)
        logits = self.dropout(logits)
        loss = None
        if labels is not None:
            loss_fct = nn.CrossEntropyLoss()
            loss = loss_fct(logits.view(-1, self.num_labels), labels.view(-1))
        return loss, logits
""",
    "a regression": """
class HousePriceRegressor(nn.Module):
    def __init__(self, n_features):
        super().__init__()
        self.fc1 = nn.Linear(n_features, 64)
        self.fc2 = nn.Linear(64, 1)
        self.dropout = nn.Dropout(0.2)

    def forward(self, x):
        x = F.relu(self.fc1(x))
        x = self.dropout(x)
        x = self.fc2(x)
        return self.dropout(x).squeeze(1)
""",
    "a forecast": """
class Forecaster(nn.Module):
    def __init__(self, d, horizon, rate):
        super().__init__()
        self.rnn = nn.GRU(1, d, batch_first=True)
        self.proj = nn.Linear(d, horizon)
        self.rate = rate

    def forward(self, x):
        h = self.rnn(x)[0][:, -1]
        return F.dropout(self.proj(h), p=self.rate, training=self.training)
""",
    "a method for the head": """
class GraphClassifier(nn.Module):
    def __init__(self, d, num_classes):
        super().__init__()
        self.conv = nn.Linear(d, d)
        self.lin = nn.Linear(d, num_classes)
        self.drop = nn.Dropout(0.5)

    def classify(self, h):
        return self.drop(self.lin(h))

    def forward(self, x):
        return self.classify(torch.relu(self.conv(x)))
""",
    "the output of a base": """
class Base(nn.Module):
    def __init__(self, d, num_classes):
        super().__init__()
        self.fc = nn.Linear(d, num_classes)

    def forward(self, x):
        return self.fc(x)


class Regularised(Base):
    def __init__(self, d, num_classes):
        super().__init__(d, num_classes)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        return self.dropout(self.fc(x))
""",
    "a model without a class": """
model = nn.Sequential(
    nn.Flatten(),
    nn.Linear(28 * 28, 128),
    nn.ReLU(),
    nn.Linear(128, 10),
    nn.Dropout(0.2),
)
loss_fn = nn.CrossEntropyLoss()
optimizer = torch.optim.Adam(model.parameters())
""",
    "two fc, ten": m(
        "self.fc1 = nn.Linear(784, 128)\nself.fc2 = nn.Linear(128, 10)\nself.dropout = nn.Dropout(0.2)",
        "x = x.flatten(1)\nx = torch.relu(self.fc1(x))\nx = self.fc2(x)\nx = self.dropout(x)\nreturn x",
        "MNISTModel",
    ),
    "resnet head": m(
        "self.backbone = resnet18()\nself.backbone.fc = nn.Sequential(nn.Linear(512, 2), nn.Dropout(0.5))",
        "return self.backbone(x)",
    ),
    "transfer": (
        "model = models.resnet50()\n"
        "model.fc = nn.Sequential(nn.Linear(2048, 256), nn.ReLU(), nn.Linear(256, num_classes), nn.Dropout(0.4))\n"
    ),
    "extend": m(
        (
            "layers = [nn.Linear(d, 32), nn.ReLU()]\n"
            "layers.extend([nn.Linear(32, num_classes), nn.Dropout(p)])\n"
            "self.layers = nn.Sequential(*layers)"
        ),
        "return self.layers(x)",
    ),
    "function factory": (
        "def build_model(n_in, n_out=3):\n"
        "    return nn.Sequential(nn.Linear(n_in, 32), nn.ReLU(), nn.Linear(32, n_out), nn.Dropout(0.5))\n"
    ),
    "add_module": (
        "model = nn.Sequential()\n"
        "model.add_module('fc1', nn.Linear(8, 32))\n"
        "model.add_module('relu', nn.ReLU())\n"
        "model.add_module('fc2', nn.Linear(32, 5))\n"
        "model.add_module('drop', nn.Dropout(0.5))\n"
        "loss_fn = nn.CrossEntropyLoss()\n"
    ),
    "gat": m(
        "self.conv1 = GATConv(d, 8)\nself.lin = nn.Linear(8, num_classes)",
        (
            "x = F.elu(self.conv1(x))\n"
            "x = self.lin(x)\n"
            "return F.log_softmax(F.dropout(x, p=0.6, training=self.training), dim=-1)"
        ),
        "GAT",
    ),
    "loss in model": m(
        "self.proj = nn.Linear(d, num_classes)\nself.drop = nn.Dropout(p)",
        "scores = self.drop(self.proj(x))\nreturn nn.CrossEntropyLoss()(scores, y)",
        args="self, x, y",
    ),
    "bce": m(
        "self.out = nn.Linear(d, 1)\nself.drop = nn.Dropout(p)",
        "logit = self.drop(self.out(x)).squeeze(-1)\nreturn F.binary_cross_entropy_with_logits(logit, y)",
        args="self, x, y",
        name="CTRModel",
    ),
    "sigmoid seq": m(
        "self.net = nn.Sequential(nn.Linear(d, 16), nn.ReLU(), nn.Linear(16, 1), nn.Sigmoid(), nn.Dropout(0.2))",
        "return self.net(x)",
        name="Discriminator",
    ),
    "torch.sigmoid method": m(
        "self.fc = nn.Linear(d, 1)\nself.drop = nn.Dropout(p)",
        "return self.drop(self.fc(x).sigmoid())",
        name="LogisticModel",
    ),
    "F.sigmoid multi": m(
        "self.fc = nn.Linear(d, num_classes)",
        ("return F.dropout(F.sigmoid(self.fc(x)), p=0.1, training=self.training)"),
    ),
    "softmax then drop": m(
        "self.fc = nn.Linear(d, num_classes)\nself.drop = nn.Dropout(p)",
        "p = F.softmax(self.fc(x), dim=1)\nreturn self.drop(p)",
    ),
    "decoder vocab": m(
        "self.out = nn.Linear(d, vocab_size)\nself.dropout = nn.Dropout(p)",
        "out = self.out(x)\nreturn self.dropout(out)",
        ia="self, d, vocab_size, p",
        name="Decoder",
    ),
    "actions": m(
        "self.l1 = nn.Linear(d, 64)\nself.l2 = nn.Linear(64, n_actions)\nself.drop = nn.Dropout(p)",
        "return self.drop(self.l2(F.relu(self.l1(x))))",
        ia="self, d, n_actions, p",
        name="QNetwork",
    ),
    "conv seg": m(
        "self.cls = nn.Conv2d(64, num_classes, kernel_size=1)\nself.drop = nn.Dropout2d(p)",
        "x = self.drop(self.cls(x))\nreturn F.interpolate(x, scale_factor=8)",
        name="FCN",
    ),
}
RIGHT = {
    "before the last layer": """
class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(8, 8), nn.Linear(8, num_classes)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return self.fc2(self.drop(F.relu(self.fc1(x))))
""",
    "the end of a block": """
class FeedForward(nn.Module):
    def __init__(self, dim, hidden, dropout):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, dim), nn.Dropout(dropout)
        )

    def forward(self, x):
        return self.net(x)
""",
    "an encoder of features": """
class ImageEncoder(nn.Module):
    def __init__(self, out_dim):
        super().__init__()
        self.fc = nn.Linear(2048, out_dim)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        return self.dropout(torch.sigmoid(self.fc(x)))
""",
    "a gate": """
class Gate(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.fc = nn.Linear(d, 1)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x):
        gate = self.dropout(torch.sigmoid(self.fc(x)))
        return x * gate
""",
    "weights of attention": """
class Attention(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.score = nn.Linear(d, 1)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x):
        weights = self.dropout(torch.sigmoid(self.score(x)))
        return (weights * x).sum(1), weights
""",
    "a layer of several": """
class GCN(nn.Module):
    def __init__(self, d, n_class):
        super().__init__()
        self.gc1 = nn.Linear(d, 16)
        self.gc2 = nn.Linear(16, n_class)

    def forward(self, x):
        x = F.relu(self.gc1(x))
        x = F.dropout(x, 0.5, training=self.training)
        x = self.gc2(x)
        return F.log_softmax(x, dim=1)
""",
    "a row that goes on": """
encoder = nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10), nn.Dropout(0.2))
decoder = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 784))
model = nn.Sequential(encoder, decoder)
""",
    "the residual branch of a mixer": """
class MixerBlock(nn.Module):
    def __init__(self, num_tokens, hidden, p):
        super().__init__()
        self.mix = nn.Sequential(nn.Linear(num_tokens, hidden), nn.GELU(), nn.Linear(hidden, num_tokens), nn.Dropout(p))

    def forward(self, x):
        return x + self.mix(x.mT).mT
""",
    "embeddings of words": """
class WordEmbedding(nn.Module):
    def __init__(self, vocab_size, d, p):
        super().__init__()
        self.emb = nn.Embedding(vocab_size, d)
        self.drop = nn.Dropout(p)

    def forward(self, ids):
        return self.drop(self.emb(ids))
""",
    "autoenc": m(
        "self.enc = nn.Sequential(nn.Linear(d, 16), nn.Sigmoid(), nn.Dropout(p))\nself.dec = nn.Linear(16, d)",
        "return self.dec(self.enc(x))",
        name="AutoencoderNet",
    ),
    "siamese": "net = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Dropout(0.1))\n",
    "backbone": m(
        "self.fc = nn.Linear(2048, 512)\nself.drop = nn.Dropout(p)",
        "return self.drop(F.relu(self.fc(x)))",
        name="FeatureNet",
    ),
    "se": m(
        "self.fc = nn.Linear(d, d // 16)\nself.fc2 = nn.Linear(d // 16, d)\nself.drop = nn.Dropout(p)",
        "s = torch.sigmoid(self.fc2(self.fc(x)))\nreturn x * self.drop(s)",
        name="SENet",
    ),
    "proj": m(
        "self.proj = nn.Linear(d, 64)\nself.drop = nn.Dropout(p)",
        "return self.drop(self.proj(x))",
        name="TransformerLayer",
    ),
    "mlp block": m(
        "self.fc1 = nn.Linear(d, 4 * d)\nself.fc2 = nn.Linear(4 * d, d)\nself.drop = nn.Dropout(p)",
        "x = self.drop(F.gelu(self.fc1(x)))\nreturn self.drop(self.fc2(x))",
        name="Mlp",
    ),
    "ffn out_features": m(
        "self.fc2 = nn.Linear(4 * d, out_features)\nself.drop = nn.Dropout(p)",
        "return self.drop(self.fc2(x))",
        name="Mlp",
        ia="self, d, out_features, p",
    ),
    "gcn enc": m(
        "self.lin = nn.Linear(d, out_channels)",
        "return F.dropout(F.relu(self.lin(x)), 0.5, self.training)",
        name="GNN",
        ia="self, d, out_channels",
    ),
    "attn": m(
        "self.out_proj = nn.Linear(d, d)\nself.drop = nn.Dropout(p)",
        "return self.drop(self.out_proj(x))",
        name="MultiHeadSelfAttention",
    ),
    "toy": "model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))\n",
    "lstm dropout": m(
        "self.lstm = nn.LSTM(d, 64)\nself.drop = nn.Dropout(p)",
        "return self.drop(self.lstm(x)[0])",
        name="EncoderModel",
    ),
}


def found(source):
    findings = check(read("example.py", Text((HEAD + source).encode())), [r for r in RULES if r.code in CODES])
    return [finding.code for finding in findings if finding.severity.value == "warning"]


@pytest.mark.parametrize("source", BAD.values(), ids=BAD)
def test_dropout_on_an_output_is_found(source):
    """Each is reported once, by one of the two rules."""
    assert len(found(source)) == 1


@pytest.mark.parametrize("source", RIGHT.values(), ids=RIGHT)
def test_dropout_inside_is_left_alone(source):
    assert found(source) == []
