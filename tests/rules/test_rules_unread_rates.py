"""DRP202, DRP203, DRP207, DRP305: rates and layers that nothing reads, and those that something may read."""

import pytest
from helpers.lint import codes

from dropkit.lint.engine.config import Config
from dropkit.lint.engine.project import check_paths

HEAD = "import torch\nimport torch.nn as nn\nimport torch.nn.functional as F\n\n"
MODEL = """
class MLP(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(cfg.width, cfg.width), nn.ReLU(), nn.Linear(cfg.width, 10))

    def forward(self, x):
        return self.fc(x)
"""
CONFIG = """from dataclasses import dataclass


@dataclass
class ModelConfig:
    width: int = 64
    dropout: float = 0.1
"""


def net(made="", forward="return self.fc(x)", arguments="width, dropout=0.1", above="", decorator="", base="nn.Module"):
    made = "".join(f"\n        {line}" for line in made.split("\n") if line)
    mark = f"    {decorator}\n" if decorator else ""
    return f"""{above}
class Net({base}):
{mark}    def __init__(self, {arguments}):
        super().__init__()
        self.fc = nn.Linear(3, 3){made}

    def forward(self, x):
        {forward}
"""


BAD = {
    # Fields of configurations.
    "a field": ("DRP207", {"model.py": CONFIG + HEAD + MODEL}),
    "a field in another file": (
        "DRP207",
        {
            "config.py": CONFIG,
            "model.py": "from config import ModelConfig\n" + HEAD + MODEL.replace("cfg)", "cfg: ModelConfig)"),
        },
    ),
    "a field that is only logged": (
        "DRP207",
        {
            "config.py": CONFIG,
            "model.py": HEAD + MODEL,
            "main.py": (
                "import wandb\n"
                "from dataclasses import asdict\n"
                "from config import ModelConfig\n"
                "from model import MLP\n"
                "cfg = ModelConfig()\n"
                "wandb.init(config=asdict(cfg))\n"
                "print(cfg.width)\n"
                "model = MLP(cfg)\n"
            ),
        },
    ),
    "a field of a frozen record": (
        "DRP207",
        {
            "model.py": CONFIG.replace("@dataclass", "@dataclass(frozen=True)").replace("dropout", "attn_drop_rate")
            + HEAD
            + MODEL
        },
    ),
    "a field of a named tuple": (
        "DRP207",
        {
            "model.py": "from typing import NamedTuple\nclass TrainArgs(NamedTuple):\n    width: int = 3\n"
            "    drop_path_rate: float = 0.2\n" + HEAD + MODEL.replace("cfg", "args")
        },
    ),
    "a field, and a literal rate": (
        "DRP207",
        {"model.py": CONFIG + HEAD + MODEL.replace("nn.ReLU(),", "nn.ReLU(), nn.Dropout(0.5),")},
    ),
    "a field of hyperparameters": (
        "DRP207",
        {
            "conf.py": CONFIG.replace("ModelConfig", "Hyperparameters"),
            "train.py": "from conf import Hyperparameters\n"
            + HEAD
            + MODEL.replace("cfg", "hp")
            + "model = MLP(Hyperparameters())\n",
        },
    ),
    "a field, in a package": (
        "DRP207",
        {
            "pkg/config.py": CONFIG,
            "pkg/__init__.py": "from .config import ModelConfig\n",
            "pkg/model.py": "from . import ModelConfig\n"
            + HEAD
            + MODEL.replace("cfg.", "self.config.").replace(
                "        self.fc", "        self.config = cfg\n        self.fc", 1
            ),
        },
    ),
    # Locals.
    "a local of a configuration": (
        "DRP207",
        {
            "a.py": HEAD
            + net(
                ('rate = 3\ndrop_rate = config.get("dropout", 0.1)\nself.out = nn.Linear(rate, 3)'),
                "return self.out(self.fc(x))",
                "config",
            )
        },
    ),
    "a local of arguments": (
        "DRP207",
        {
            "a.py": HEAD
            + (
                "def build_model(args):\n"
                "    dropout = args.dropout\n"
                "    return nn.Sequential(nn.Linear(args.width, 64), nn.ReLU(), nn.Linear(64, 2))\n"
            )
        },
    ),
    "an item in a local": (
        "DRP207",
        {
            "a.py": HEAD
            + (
                "def make(params):\n"
                "    hidden = params['hidden']\n"
                "    drop_prob = params['drop_prob']\n"
                "    return nn.Linear(hidden, hidden)\n"
            )
        },
    ),
    "a number in a local": (
        "DRP207",
        {
            "a.py": HEAD
            + (
                "def make(width):\n"
                "    dropout_rate = 0.3\n"
                "    return nn.Sequential(nn.Linear(width, width), nn.GELU())\n"
            )
        },
    ),
    "a local beside a literal": (
        "DRP207",
        {
            "a.py": HEAD
            + net(
                ("dropout = config.dropout\nself.dropout = nn.Dropout(0.5)"),
                "return self.dropout(self.fc(x))",
                "config",
            )
        },
    ),
    "a local by getattr": (
        "DRP207",
        {
            "a.py": HEAD
            + ('def make(opt):\n    drop_rate = getattr(opt, "drop_rate", 0.1)\n    return nn.Linear(opt.n, opt.n)\n')
        },
    ),
    # Keyword arguments.
    "popped": (
        "DRP207",
        {"a.py": HEAD + net(('kwargs.pop("dropout", 0.1)\nself.more = make(**kwargs)'), arguments="**kwargs")},
    ),
    "popped into a local": (
        "DRP207",
        {
            "a.py": HEAD
            + net(('dropout = kwargs.pop("dropout", 0.1)\nself.more = make(**kwargs)'), arguments="**kwargs")
        },
    ),
    "popped in a function": (
        "DRP207",
        {
            "a.py": HEAD
            + ("def head(width, **kw):\n    kw.pop('drop_rate', 0.2)\n    return nn.Linear(width, width, **kw)\n")
        },
    ),
    "popped into an attribute": (
        "DRP203",
        {"a.py": HEAD + net('self.dropout = kwargs.pop("dropout", 0.1)', arguments="**kwargs")},
    ),
    # Functions.
    "a function": (
        "DRP207",
        {
            "a.py": HEAD
            + (
                "def block(inp, out, dropout):\n"
                "    return nn.Sequential(nn.Linear(inp, out), nn.ReLU())\n"
                "\n"
                "model = nn.Sequential(block(3, 4, 0.1), block(4, 3, 0.1))\n"
            )
        },
    ),
    "a function in another file": (
        "DRP207",
        {
            "layers.py": HEAD
            + (
                "def build_head(dim, classes, dropout=0.0):\n"
                "    return nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, classes))\n"
            ),
            "model.py": HEAD
            + "from layers import build_head\n"
            + net("self.head = build_head(3, 3, dropout=dropout)", "return self.head(x)"),
        },
    ),
    "a function of a package": (
        "DRP207",
        {
            "lib/__init__.py": "",
            "lib/layers.py": HEAD
            + (
                "def mlp(sizes, drop_rate=0.1):\n"
                "    return nn.Sequential(*[nn.Linear(a, b) for a, b in zip(sizes, sizes[1:])])\n"
            ),
            "lib/model.py": HEAD
            + "from . import layers\n"
            + net("self.head = layers.mlp([3, 3], drop_rate=dropout)", "return self.head(x)"),
        },
    ),
    "a method": (
        "DRP207",
        {
            "a.py": HEAD
            + net("self.stage = self._make_stage(3, dropout)", "return self.stage(x)")
            + (
                "    def _make_stage(self, n, dropout_rate):\n"
                "        return nn.Sequential(*[nn.Linear(3, 3) for _ in range(n)])\n"
            )
        },
    ),
    "a static method": (
        "DRP207",
        {
            "a.py": HEAD
            + net("self.stage = self.make(3, drop=dropout)", "return self.stage(x)")
            + ("    @staticmethod\n    def make(n, drop=0.0):\n        return nn.Linear(n, n)\n")
        },
    ),
    "a function around": (
        "DRP207",
        {
            "a.py": HEAD
            + (
                "def build(cfg):\n"
                "    def layer(n, dropout):\n"
                "        return nn.Linear(n, n)\n"
                "    return nn.Sequential(layer(3, cfg.dropout), layer(3, cfg.dropout))\n"
            )
        },
    ),
    # Layers that are added by a name.
    "added by a name": ("DRP202", {"a.py": HEAD + net('self.add_module("drop", nn.Dropout(dropout))')}),
    "registered by a name": ("DRP202", {"a.py": HEAD + net('self.register_module("drop", nn.Dropout(dropout))')}),
    "set by a name": ("DRP202", {"a.py": HEAD + net('setattr(self, "drop", nn.Dropout(p=dropout))')}),
    "added by a keyword": (
        "DRP202",
        {"a.py": HEAD + net('self.add_module(name="drop", module=nn.Dropout2d(0.3))', arguments="n")},
    ),
    # Constructors with decorators, and those that keep their arguments.
    "a constructor that is checked": (
        "DRP203",
        {"a.py": HEAD + net(decorator="@typechecked", above="from typeguard import typechecked\n")},
    ),
    "a constructor that stores": (
        "DRP203",
        {"a.py": HEAD + net(decorator="@auto_init", above="from lib import auto_init\n")},
    ),
    "a constructor with two decorators": (
        "DRP203",
        {
            "a.py": HEAD
            + net(
                decorator="@jaxtyped(typechecker=beartype)",
                above=("from jaxtyping import jaxtyped\nfrom beartype import beartype\n"),
            )
        },
    ),
    "saved hyperparameters": (
        "DRP203",
        {
            "a.py": HEAD
            + net(
                ("self.save_hyperparameters()\nself.out = nn.Linear(self.hparams.width, 2)"),
                "return self.out(self.fc(x))",
                base="pl.LightningModule",
                above="import lightning as pl\n",
            )
        },
    ),
    "hyperparameters that are stored": (
        "DRP203",
        {"a.py": HEAD + net('self.dropout = hparams["dropout"]', arguments="hparams")},
    ),
    # Classes that are no Modules.
    "a builder": (
        "DRP203",
        {
            "a.py": HEAD
            + (
                "class Builder:\n"
                "    def __init__(self, width, dropout=0.1):\n"
                "        self.width = width\n"
                "        self.dropout = dropout\n"
                "\n"
                "    def build(self):\n"
                "        return nn.Sequential(nn.Linear(self.width, 8), nn.ReLU(), nn.Linear(8, 2))\n"
            )
        },
    ),
    "a trainer": (
        "DRP203",
        {
            "a.py": HEAD
            + net("", arguments="width")
            + (
                "class Trainer:\n"
                "    def __init__(self, width, lr, dropout_rate):\n"
                "        self.lr = lr\n"
                "        self.dropout_rate = dropout_rate\n"
                "        self.model = Net(width)\n"
                "\n"
                "    def fit(self, loader):\n"
                "        optimizer = torch.optim.SGD(self.model.parameters(), lr=self.lr)\n"
            )
        },
    ),
    # Checkpointing.
    "options of a trainer": (
        "DRP305",
        {
            "a.py": (
                "from transformers import Trainer, TrainingArguments\n"
                "args = TrainingArguments(\n"
                "    output_dir='x', gradient_checkpointing_kwargs={'preserve_rng_state': False}\n"
                ")\n"
            )
        },
    ),
    "options of a model": (
        "DRP305",
        {
            "a.py": (
                "from transformers import AutoModel\n"
                "model = AutoModel.from_pretrained('bert-base-uncased')\n"
                "options = dict(use_reentrant=False, preserve_rng_state=False)\n"
                "model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)\n"
            )
        },
    ),
    "options in a name": (
        "DRP305",
        {
            "a.py": (
                "import torch\n"
                "from transformers import AutoModel\n"
                "OPTIONS = {'use_reentrant': False, 'preserve_rng_state': False}\n"
                "def prepare(model):\n"
                "    model.gradient_checkpointing_enable(OPTIONS)\n"
                "    return model\n"
            )
        },
    ),
    "field: pydantic": (
        "DRP207",
        {
            "settings.py": (
                "from pydantic import BaseModel\n"
                "\n"
                "class HParams(BaseModel):\n"
                "    d_model: int = 8\n"
                "    attention_dropout: float = 0.1\n"
                "    residual_dropout: float = 0.1\n"
            ),
            "net.py": HEAD
            + (
                "class Block(nn.Module):\n"
                "    def __init__(self, hparams):\n"
                "        super().__init__()\n"
                "        self.attn = nn.MultiheadAttention(hparams.d_model, 2, dropout=hparams.attention_dropout)\n"
                "    def forward(self, x):\n"
                "        return self.attn(x, x, x)[0]\n"
            ),
            "train.py": (
                "from settings import HParams\n"
                "from net import Block\n"
                "hparams = HParams()\n"
                "print(hparams.d_model)\n"
                "model = Block(hparams)\n"
            ),
        },
    ),
    "field: nested": (
        "DRP207",
        {
            "c.py": (
                "from dataclasses import dataclass, field\n"
                "\n"
                "@dataclass\n"
                "class EncoderConfig:\n"
                "    depth: int = 2\n"
                "    drop_path_rate: float = 0.1\n"
                "\n"
                "@dataclass\n"
                "class Config:\n"
                "    encoder: EncoderConfig = field(default_factory=EncoderConfig)\n"
                "    lr: float = 1e-3\n"
            ),
            "m.py": HEAD
            + (
                "from c import Config, EncoderConfig\n"
                "\n"
                "class Encoder(nn.Module):\n"
                "    def __init__(self, cfg: EncoderConfig):\n"
                "        super().__init__()\n"
                "        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(cfg.depth))\n"
                "    def forward(self, x):\n"
                "        for l in self.layers:\n"
                "            x = l(x)\n"
                "        return x\n"
            ),
        },
    ),
    "field: argparse into dataclass, saved json": (
        "DRP207",
        {
            "a.py": (
                "import json\n"
                "from dataclasses import dataclass, asdict\n" + HEAD + "@dataclass\n"
                "class TrainConfig:\n"
                "    hidden: int = 32\n"
                "    dropout_prob: float = 0.25\n"
                "    epochs: int = 3\n"
                "\n"
                "def main(config: TrainConfig):\n"
                "    json.dump(asdict(config), open('c.json', 'w'))\n"
                "    model = nn.Sequential(nn.Linear(4, config.hidden), nn.ReLU(), nn.Linear(config.hidden, 2))\n"
                "    for _ in range(config.epochs):\n"
                "        pass\n"
            ),
        },
    ),
    "field: GPT": (
        "DRP207",
        {
            "gpt.py": (
                "from dataclasses import dataclass\n" + HEAD + "@dataclass\n"
                "class GPTConfig:\n"
                "    n_embd: int = 768\n"
                "    n_head: int = 12\n"
                "    dropout: float = 0.0\n"
                "\n"
                "class CausalSelfAttention(nn.Module):\n"
                "    def __init__(self, config):\n"
                "        super().__init__()\n"
                "        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd)\n"
                "        self.n_head = config.n_head\n"
                "    def forward(self, x):\n"
                "        q, k, v = self.c_attn(x).chunk(3, -1)\n"
                "        return F.scaled_dot_product_attention(q, k, v, is_causal=True)\n"
            ),
        },
    ),
    "local: json config": (
        "DRP207",
        {
            "a.py": HEAD
            + (
                "import json\n"
                "def build(path):\n"
                "    config = json.load(open(path))\n"
                "    n = config['n']\n"
                "    dropout = config['dropout']\n"
                "    return nn.Sequential(nn.Linear(n, n), nn.ReLU())\n"
            ),
        },
    ),
    "local: main args": (
        "DRP207",
        {
            "a.py": HEAD
            + ("def main(args):\n    drop_prob = args.drop_prob\n    model = Model(args.width)\n    model.train()\n"),
        },
    ),
    "local: hparams in init": (
        "DRP207",
        {
            "a.py": HEAD
            + (
                "class N(nn.Module):\n"
                "    def __init__(self, hparams):\n"
                "        super().__init__()\n"
                "        p_drop = hparams['p_drop']\n"
                "        width = hparams['width']\n"
                "        self.l = nn.Linear(width, width)\n"
                "    def forward(self, x):\n"
                "        return self.l(x)\n"
            ),
        },
    ),
    "local tuple": (
        "DRP207",
        {
            "a.py": HEAD
            + ("def make(cfg):\n    width, dropout = cfg.width, cfg.dropout\n    return nn.Linear(width, width)\n"),
        },
    ),
    "pop get": (
        "DRP207",
        {
            "a.py": HEAD
            + (
                "class N(nn.Module):\n"
                "    def __init__(self, n, **kwargs):\n"
                "        super().__init__()\n"
                "        drop = kwargs.get('dropout', 0.1)\n"
                "        self.l = nn.Linear(n, n)\n"
                "    def forward(self, x):\n"
                "        return self.l(x)\n"
            ),
        },
    ),
    "fn: keyword, two calls": (
        "DRP207",
        {
            "a.py": HEAD
            + (
                "def conv_block(i, o, drop_prob=0.2):\n"
                "    layers = [nn.Conv2d(i, o, 3), nn.BatchNorm2d(o), nn.ReLU()]\n"
                "    return nn.Sequential(*layers)\n"
                "\n"
                "class U(nn.Module):\n"
                "    def __init__(self, drop_prob):\n"
                "        super().__init__()\n"
                "        self.a = conv_block(1, 8, drop_prob)\n"
                "        self.b = conv_block(8, 8, drop_prob)\n"
                "    def forward(self, x):\n"
                "        return self.b(self.a(x))\n"
            ),
        },
    ),
    "fn: functional helper": (
        "DRP207",
        {
            "a.py": HEAD
            + (
                "def attention(q, k, v, mask=None, dropout=None):\n"
                "    s = q @ k.transpose(-2, -1)\n"
                "    if mask is not None:\n"
                "        s = s.masked_fill(mask == 0, -1e9)\n"
                "    return s.softmax(-1) @ v\n"
                "\n"
                "class A(nn.Module):\n"
                "    def __init__(self, dropout=0.1):\n"
                "        super().__init__()\n"
                "        self.dropout = nn.Dropout(dropout)\n"
                "    def forward(self, x):\n"
                "        return attention(x, x, x, dropout=self.dropout)\n"
            ),
        },
    ),
    "fn: other file positional": (
        "DRP207",
        {
            "blocks.py": HEAD
            + ("def ffn(d, h, dropout):\n    return nn.Sequential(nn.Linear(d, h), nn.GELU(), nn.Linear(h, d))\n"),
            "m.py": HEAD
            + (
                "from blocks import ffn\n"
                "class M(nn.Module):\n"
                "    def __init__(self, d, dropout):\n"
                "        super().__init__()\n"
                "        self.f = ffn(d, 4 * d, dropout)\n"
                "    def forward(self, x):\n"
                "        return self.f(x)\n"
            ),
        },
    ),
    "fn: method _build": (
        "DRP207",
        {
            "a.py": HEAD
            + (
                "class R(nn.Module):\n"
                "    def __init__(self, n, dropout=0.3):\n"
                "        super().__init__()\n"
                "        self.layers = self._build_layers(n, dropout=dropout)\n"
                "    def _build_layers(self, n, dropout):\n"
                "        return nn.ModuleList([nn.Linear(4, 4) for _ in range(n)])\n"
                "    def forward(self, x):\n"
                "        for l in self.layers:\n"
                "            x = l(x)\n"
                "        return x\n"
            ),
        },
    ),
    "class positional (203)": (
        "DRP203",
        {
            "a.py": HEAD
            + (
                "class Sub(nn.Module):\n"
                "    def __init__(self, d, dropout):\n"
                "        super().__init__()\n"
                "        self.l = nn.Linear(d, d)\n"
                "    def forward(self, x):\n"
                "        return self.l(x)\n"
                "\n"
                "class M(nn.Module):\n"
                "    def __init__(self, d, dropout):\n"
                "        super().__init__()\n"
                "        self.s = Sub(d, dropout)\n"
                "    def forward(self, x):\n"
                "        return self.s(x)\n"
            ),
        },
    ),
    "add_module loop": (
        "DRP202",
        {
            "a.py": HEAD
            + (
                "class N(nn.Module):\n"
                "    def __init__(self, n, p):\n"
                "        super().__init__()\n"
                "        for i in range(n):\n"
                "            self.add_module(f'fc{i}', nn.Linear(4, 4))\n"
                "            self.add_module('dropout', nn.Dropout(p))\n"
                "        self.n = n\n"
                "    def forward(self, x):\n"
                "        for i in range(self.n):\n"
                "            x = getattr(self, f'fc{i}')(x)\n"
                "        return x\n"
            ),
        },
    ),
    "decorated beartype": (
        "DRP203",
        {
            "a.py": HEAD
            + (
                "from beartype import beartype\n"
                "class N(nn.Module):\n"
                "    @beartype\n"
                "    def __init__(self, d: int, dropout: float = 0.1):\n"
                "        super().__init__()\n"
                "        self.l = nn.Linear(d, d)\n"
                "    def forward(self, x):\n"
                "        return self.l(x)\n"
            ),
        },
    ),
    "decorated store": (
        "DRP203",
        {
            "a.py": HEAD
            + (
                "from .common import store_args\n"
                "class N(nn.Module):\n"
                "    @store_args\n"
                "    def __init__(self, d, dropout=0.1):\n"
                "        super().__init__()\n"
                "        self.l = nn.Linear(self.d, self.d)\n"
                "    def forward(self, x):\n"
                "        return self.l(x)\n"
            ),
        },
    ),
    "hparams lit": (
        "DRP203",
        {
            "a.py": HEAD
            + (
                "import pytorch_lightning as pl\n"
                "class L(pl.LightningModule):\n"
                "    def __init__(self, lr=1e-3, hidden=32, dropout=0.1):\n"
                "        super().__init__()\n"
                "        self.save_hyperparameters()\n"
                "        self.net = nn.Sequential(nn.Linear(4, self.hparams.hidden), nn.ReLU(), nn.Linear(self.hparams.hidden, 2))\n"
                "    def forward(self, x):\n"
                "        return self.net(x)\n"
                "    def configure_optimizers(self):\n"
                "        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)\n"
            ),
        },
    ),
    "hparams args used": (
        "DRP203",
        {
            "a.py": HEAD
            + (
                "import pytorch_lightning as pl\n"
                "class L(pl.LightningModule):\n"
                "    def __init__(self, hidden=32, drop_rate=0.1):\n"
                "        super().__init__()\n"
                "        self.save_hyperparameters()\n"
                "        self.net = nn.Linear(4, hidden)\n"
                "    def forward(self, x):\n"
                "        return self.net(x)\n"
            ),
        },
    ),
    "self.hparams = hparams": (
        "DRP203",
        {
            "a.py": HEAD
            + (
                "class L(nn.Module):\n"
                "    def __init__(self, hparams):\n"
                "        super().__init__()\n"
                "        self.hparams = hparams\n"
                "        self.dropout_rate = self.hparams.dropout_rate\n"
                "        self.net = nn.Linear(4, self.hparams.hidden)\n"
                "    def forward(self, x):\n"
                "        return self.net(x)\n"
            ),
        },
    ),
    "config stored": (
        "DRP203",
        {
            "a.py": HEAD
            + (
                "class L(nn.Module):\n"
                "    def __init__(self, config):\n"
                "        super().__init__()\n"
                "        self.hidden_size = config.hidden_size\n"
                "        self.dropout_prob = config.hidden_dropout_prob\n"
                "        self.net = nn.Linear(4, self.hidden_size)\n"
                "    def forward(self, x):\n"
                "        return self.net(x)\n"
            ),
        },
    ),
    "trainer kwargs": (
        "DRP305",
        {
            "a.py": (
                "from transformers import Seq2SeqTrainingArguments\n"
                "args = Seq2SeqTrainingArguments(output_dir='o', gradient_checkpointing=True, gradient_checkpointing_kwargs={'use_reentrant': True, 'preserve_rng_state': False})\n"
            ),
        },
    ),
    "trainer builder class": (
        "DRP203",
        {
            "a.py": HEAD
            + (
                "class Experiment:\n"
                "    def __init__(self, cfg, hidden, dropout=0.2):\n"
                "        self.hidden = hidden\n"
                "        self.dropout = dropout\n"
                "        self.model = nn.Sequential(nn.Linear(8, hidden), nn.ReLU(), nn.Linear(hidden, 2))\n"
                "    def run(self, x):\n"
                "        return self.model(x)\n"
            ),
        },
    ),
}
FINE = {
    "a field that is read": {"model.py": CONFIG + HEAD + MODEL.replace("nn.ReLU()", "nn.Dropout(cfg.dropout)")},
    "a field that another file reads": {
        "config.py": CONFIG,
        "model.py": HEAD + MODEL.replace("nn.ReLU()", "nn.Dropout(cfg.dropout)"),
    },
    "a field that a string names": {
        "config.py": CONFIG,
        "model.py": "from config import ModelConfig\n"
        + HEAD
        + MODEL.replace("nn.ReLU()", 'nn.Dropout(getattr(cfg, "dropout"))'),
    },
    "fields that are unpacked": {
        "config.py": CONFIG,
        "main.py": (
            "from dataclasses import asdict\n"
            "from config import ModelConfig\n"
            "from net import Net\n"
            "cfg = ModelConfig()\n"
            "print(cfg.width)\n"
            "model = Net(**asdict(cfg))\n"
        ),
        "net.py": HEAD + net("self.drop = nn.Dropout(dropout)", "return self.fc(self.drop(x))"),
    },
    "a record of which nothing is read": {"config.py": CONFIG},
    "a choice": {"model.py": CONFIG.replace("dropout: float = 0.1", "use_dropout: bool = True") + HEAD + MODEL},
    "a local that is read": {
        "a.py": HEAD
        + (
            "def make(args):\n"
            "    dropout = args.dropout\n"
            "    return nn.Sequential(nn.Linear(3, 3), nn.Dropout(dropout))\n"
        )
    },
    "a local of a closure": {
        "a.py": HEAD
        + (
            "def make(args):\n"
            "    dropout = args.dropout\n"
            "    def layer():\n"
            "        return nn.Dropout(dropout)\n"
            "    return layer\n"
        )
    },
    "the setting itself": {
        "a.py": HEAD
        + (
            "def make(args):\n"
            "    dropout = args.dropout\n"
            "    return nn.Sequential(nn.Linear(3, 3), nn.Dropout(args.dropout))\n"
        )
    },
    "all locals": {"a.py": HEAD + "def make(args):\n    dropout = args.dropout\n    return Model(**locals())\n"},
    "stripped": {
        "a.py": HEAD
        + ("def head(width, **kw):\n    kw.pop('drop_rate', None)\n    return nn.Linear(width, width, **kw)\n")
    },
    "popped and used": {
        "a.py": HEAD
        + net('self.drop = nn.Dropout(kwargs.pop("dropout", 0.1))', "return self.fc(self.drop(x))", "**kwargs")
    },
    "a function that nobody calls": {
        "a.py": HEAD + ("def block(inp, out, dropout):\n    return nn.Linear(inp, out)\n")
    },
    "a function that gets no rate": {
        "a.py": HEAD + ("def block(inp, dropout=0.0):\n    return nn.Linear(inp, inp)\n\nmodel = block(3)\n")
    },
    "functions in a table": {
        "a.py": HEAD
        + (
            "def wide(n, dropout):\n"
            "    return nn.Linear(n, n)\n"
            "\n"
            "HEADS = {'wide': wide}\n"
            "model = wide(3, dropout=0.1)\n"
        )
    },
    "a method of a signature": {
        "a.py": HEAD
        + net("self.stage = self.make(3, dropout)", "return self.stage(x)")
        + (
            "    def make(self, n, dropout):\n"
            "        return nn.Linear(n, n)\n"
            "\n"
            "class Other(Net):\n"
            "    def make(self, n, dropout):\n"
            "        return nn.Dropout(dropout)\n"
        )
    },
    "a template": {
        "a.py": HEAD
        + ("def block(n, dropout):\n    check(n)\n    raise NotImplementedError\n\nmodel = block(3, 0.1)\n")
    },
    "added and applied": {
        "a.py": HEAD + net('self.add_module("drop", nn.Dropout(dropout))', "return self.fc(self.drop(x))")
    },
    "added and got": {
        "a.py": HEAD + net('self.add_module("drop", nn.Dropout(dropout))', 'return self.fc(getattr(self, "drop")(x))')
    },
    "added to a row": {
        "a.py": HEAD
        + net('self.add_module("drop", nn.Dropout(dropout))', "return super().forward(x)", base="nn.Sequential")
    },
    "added and iterated": {
        "a.py": HEAD + net('self.add_module("drop", nn.Dropout(dropout))', "return run(self.children(), x)")
    },
    "stored by a decorator": {
        "a.py": HEAD
        + net(
            "",
            "return F.dropout(self.fc(x), self.dropout, self.training)",
            decorator="@auto_init",
            above="from lib import auto_init\n",
        )
    },
    "renamed by a decorator": {
        "a.py": HEAD + net(decorator='@deprecated("dropout")', above="from lib import deprecated\n")
    },
    "registered in a configuration": {
        "a.py": HEAD + net(decorator="@register_to_config", above="from diffusers import register_to_config\n")
    },
    "saved and read": {
        "a.py": HEAD
        + net(
            ("self.save_hyperparameters()\nself.drop = nn.Dropout(self.hparams.dropout)"),
            "return self.drop(self.fc(x)).relu() @ self.fc.weight",
            base="pl.LightningModule",
            above="import lightning as pl\n",
        )
    },
    "saved and passed on": {
        "a.py": HEAD
        + net(
            ("self.save_hyperparameters()\nself.net = make(self.hparams)"),
            "return self.net(x)",
            base="pl.LightningModule",
            above="import lightning as pl\n",
        )
    },
    "a builder that reads": {
        "a.py": HEAD
        + (
            "class Builder:\n"
            "    def __init__(self, dropout=0.1):\n"
            "        self.dropout = dropout\n"
            "\n"
            "    def build(self):\n"
            "        return nn.Sequential(nn.Linear(3, 8), nn.Dropout(self.dropout), nn.Linear(8, 2))\n"
        )
    },
    "a record by hand": {
        "a.py": HEAD
        + (
            "class Report:\n"
            "    def __init__(self, width, dropout):\n"
            "        self.width, self.dropout = width, dropout\n"
            "\n"
            "    def name(self):\n"
            "        return self.width\n"
        )
    },
    "a trainer that others read": {
        "a.py": HEAD
        + (
            "class Trainer:\n"
            "    def __init__(self, dropout):\n"
            "        self.dropout = dropout\n"
            "        self.model = nn.Linear(3, 3)\n"
        ),
        "b.py": HEAD + "def run(trainer):\n    return nn.Dropout(trainer.dropout)\n",
    },
    "options with the state": {
        "a.py": (
            "from transformers import TrainingArguments\n"
            "args = TrainingArguments('x', gradient_checkpointing_kwargs={'preserve_rng_state': True})\n"
        )
    },
    "lib config read by getattr fmt": {
        "a.py": (
            "from dataclasses import dataclass\n" + HEAD + "@dataclass\n"
            "class Config:\n"
            "    n: int = 3\n"
            "    enc_dropout: float = 0.1\n"
            "    dec_dropout: float = 0.1\n"
            "def make(cfg, part):\n"
            "    return nn.Sequential(nn.Linear(cfg.n, cfg.n), nn.Dropout(getattr(cfg, f'{part}_dropout')))\n"
        ),
    },
    "field via self.cfg": {
        "a.py": (
            "from dataclasses import dataclass\n" + HEAD + "@dataclass\n"
            "class Config:\n"
            "    n: int = 3\n"
            "    dropout: float = 0.1\n"
        ),
        "b.py": HEAD
        + (
            "class M(nn.Module):\n"
            "    def __init__(self, cfg):\n"
            "        super().__init__()\n"
            "        self.cfg = cfg\n"
            "        self.l = nn.Linear(cfg.n, cfg.n)\n"
            "    def forward(self, x):\n"
            "        return F.dropout(self.l(x), self.cfg.dropout, self.training)\n"
        ),
    },
    "replace kwargs": {
        "a.py": (
            "from dataclasses import dataclass\n" + HEAD + "@dataclass\n"
            "class Config:\n"
            "    n: int = 3\n"
            "    dropout: float = 0.1\n"
        ),
        "b.py": (
            "from a import Config\n" + HEAD + "def build(config):\n"
            "    print(config.n)\n"
            "    return Model(**vars(config))\n"
        ),
    },
    "iterate fields": {
        "a.py": (
            "import dataclasses\n"
            "from dataclasses import dataclass\n" + HEAD + "@dataclass\n"
            "class Config:\n"
            "    n: int = 3\n"
            "    dropout: float = 0.1\n"
            "    def kwargs(self):\n"
            "        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}\n"
            "def f(cfg): return nn.Linear(cfg.n, cfg.n)\n"
        ),
    },
    "local used in fstring": {
        "a.py": HEAD
        + (
            "def main(args):\n"
            "    dropout = args.dropout\n"
            "    name = f'm_{dropout}'\n"
            "    return nn.Linear(args.n, args.n), name\n"
        ),
    },
    "local passed on": {
        "a.py": HEAD + ("def main(args):\n    dropout = args.dropout\n    return Model(args.n, dropout=dropout)\n"),
    },
    "reassign": {
        "a.py": HEAD
        + (
            "def main(args):\n"
            "    dropout = args.dropout\n"
            "    if args.small:\n"
            "        dropout = 0.0\n"
            "    return nn.Dropout(dropout)\n"
        ),
    },
    "method hook signature": {
        "a.py": HEAD
        + (
            "class Base(nn.Module):\n"
            "    def make(self, n, dropout):\n"
            "        raise NotImplementedError\n"
            "    def __init__(self, n, dropout):\n"
            "        super().__init__()\n"
            "        self.x = self.make(n, dropout)\n"
            "class A(Base):\n"
            "    def make(self, n, dropout):\n"
            "        return nn.Linear(n, n)\n"
            "class B(Base):\n"
            "    def make(self, n, dropout):\n"
            "        return nn.Dropout(dropout)\n"
        ),
    },
    "backends": {
        "a.py": HEAD
        + (
            "def eager(q, k, v, dropout=0.0):\n"
            "    return F.dropout((q @ k).softmax(-1), dropout) @ v\n"
            "def flex(q, k, v, dropout=0.0):\n"
            "    return flex_attention(q, k, v)\n"
            "BACK = {'eager': eager, 'flex': flex}\n"
            "class A(nn.Module):\n"
            "    def forward(self, x):\n"
            "        return BACK[self.kind](x, x, x, dropout=0.1 if self.training else 0.0)\n"
        ),
    },
    "del": {
        "a.py": HEAD + ("def block(n, dropout):\n    del dropout\n    return nn.Linear(n, n)\nm = block(3, 0.1)\n"),
    },
    "raise if": {
        "a.py": HEAD
        + (
            "def block(n, dropout=0.0):\n"
            "    if dropout:\n"
            "        raise ValueError('no')\n"
            "    return nn.Linear(n, n)\n"
            "m = block(3, 0.1)\n"
        ),
    },
    "add_module applied via modules dict": {
        "a.py": HEAD
        + (
            "class N(nn.Module):\n"
            "    def __init__(self, p):\n"
            "        super().__init__()\n"
            "        self.add_module('drop', nn.Dropout(p))\n"
            "        self.l = nn.Linear(3, 3)\n"
            "    def forward(self, x):\n"
            "        return self.l(self._modules['drop'](x))\n"
        ),
    },
    "save_hparams, other file reads": {
        "a.py": HEAD
        + (
            "import pytorch_lightning as pl\n"
            "class L(pl.LightningModule):\n"
            "    def __init__(self, net, dropout=0.1):\n"
            "        super().__init__()\n"
            "        self.save_hyperparameters()\n"
            "        self.net = net(self)\n"
            "    def forward(self, x):\n"
            "        return self.net(x)\n"
        ),
    },
    "trainer passing self": {
        "a.py": HEAD
        + (
            "class Experiment:\n"
            "    def __init__(self, dropout=0.2):\n"
            "        self.dropout = dropout\n"
            "        self.model = build(self)\n"
            "        self.l = nn.Linear(3, 3)\n"
        ),
    },
    "sklearn": {
        "a.py": HEAD
        + (
            "from sklearn.base import BaseEstimator\n"
            "class Est(BaseEstimator):\n"
            "    def __init__(self, dropout=0.2):\n"
            "        self.dropout = dropout\n"
            "    def fit(self, X, y):\n"
            "        self.model_ = nn.Sequential(nn.Linear(3, 3), nn.Dropout(self.dropout), nn.Linear(3, 1))\n"
        ),
    },
}


def found(folder, files):
    (folder / "pyproject.toml").write_text("")
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return codes(check_paths([str(folder)], Config(root=folder)))


@pytest.mark.parametrize(("code", "files"), BAD.values(), ids=BAD)
def test_a_rate_or_a_layer_that_nothing_reads_is_found(code, files, tmp_path):
    """It is reported once, and nothing else is."""
    assert found(tmp_path, files) == [code]


@pytest.mark.parametrize("files", FINE.values(), ids=FINE)
def test_what_something_may_read_is_left_alone(files, tmp_path):
    assert found(tmp_path, files) == []
