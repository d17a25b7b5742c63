"""Rates that nothing reads, and those that something may: kept by a name or a decorator, and in options."""

from helpers.rate_projects import HEAD, net

UNREAD = {
    "added by a name": ("DRP202", {"a.py": HEAD + net('self.add_module("drop", nn.Dropout(dropout))')}),
    "registered by a name": ("DRP202", {"a.py": HEAD + net('self.register_module("drop", nn.Dropout(dropout))')}),
    "set by a name": ("DRP202", {"a.py": HEAD + net('setattr(self, "drop", nn.Dropout(p=dropout))')}),
    "added by a keyword": (
        "DRP202",
        {"a.py": HEAD + net('self.add_module(name="drop", module=nn.Dropout2d(0.3))', arguments="n")},
    ),
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
                "        self.net = nn.Sequential(nn.Linear(4, self.hparams.hidden), nn.ReLU())\n"
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
                "options = {'use_reentrant': True, 'preserve_rng_state': False}\n"
                "args = Seq2SeqTrainingArguments('o', gradient_checkpointing_kwargs=options)\n"
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
MAYBE_READ = {
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
