"""The callbacks audit the first batch of a real training loop, and the training is the same as without them."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dropkit.callbacks.first_batch import BadDropout

# Both import torchvision if it is there.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("torchvision")]


class Net(nn.Module):
    def __init__(self, always=False):
        super().__init__()
        self.hidden, self.dropout, self.head = nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2)
        self.always = always

    def forward(self, x, labels=None):
        hidden = F.dropout(self.hidden(self.dropout(x)).relu(), 0.25, self.training or self.always)
        logits = self.head(hidden)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


ROWS = [{"x": torch.randn(4, generator=torch.Generator().manual_seed(i)), "labels": i % 2} for i in range(32)]


def trained_by_hugging_face(tmp_path, callbacks, always=False):
    from transformers import Trainer, TrainingArguments

    torch.manual_seed(0)
    model = Net(always)
    arguments = TrainingArguments(
        tmp_path, max_steps=3, per_device_train_batch_size=8, report_to=[], save_strategy="no", disable_tqdm=True,
        use_cpu=True,
    )  # fmt: skip
    Trainer(model, arguments, train_dataset=ROWS, callbacks=callbacks).train()
    return model


def trained_by_lightning(tmp_path, callbacks, always=False, by_hand=False):
    import lightning.pytorch as lightning

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Net(always)
            self.automatic_optimization = not by_hand

        def training_step(self, batch, index):
            loss = self.net(**batch)["loss"]
            self.log("loss", loss)
            return loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    torch.manual_seed(0)
    module = Module()
    trainer = lightning.Trainer(
        max_steps=3, callbacks=callbacks, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accelerator="cpu", default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(ROWS, batch_size=8))
    return module.net


def callback(loop, **options):
    if loop is trained_by_hugging_face:
        from dropkit.callbacks.transformers import DropoutAudit
    else:
        from dropkit.callbacks.lightning import DropoutAudit
    return DropoutAudit(**options)


each_loop = pytest.mark.parametrize("loop", [trained_by_hugging_face, trained_by_lightning])


@each_loop
def test_the_first_batch_is_audited_and_the_training_is_the_same(loop, tmp_path, capsys):
    """All masks and weights have the same bits as without the audit."""
    audit = callback(loop)

    with_audit, without = loop(tmp_path, [audit]), loop(tmp_path, [])

    assert [site.kind for site in audit.report.sites] == ["Dropout", "dropout"]
    assert audit.report.findings == ()
    assert capsys.readouterr().out.count("2 sites:") == 1
    for name, value in with_audit.state_dict().items():
        assert torch.equal(value, without.state_dict()[name])


@each_loop
def test_errors_stop_the_run_if_asked_to(loop, tmp_path):
    audit = callback(loop, stop=True, quiet=True)

    with pytest.raises(BadDropout, match="DRP101 error"):
        loop(tmp_path, [audit], always=True)

    assert [finding.code for finding in audit.report.findings] == ["DRP101"]


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_a_step_that_cannot_be_audited_does_not_end_the_training(mode, tmp_path):
    """One that fails in evaluation leaves a report of the training; one that fails altogether a warning."""
    import lightning.pytorch as lightning

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net, self.steps = Net(), 0

        def training_step(self, batch):
            if mode == "eval" and not self.training:
                raise ArithmeticError("eval")
            if mode == "train" and type(torch.utils._python_dispatch._get_current_dispatch_mode()) is not type(None):
                raise ArithmeticError("watched")
            return self.net(**batch)["loss"]

        def on_train_batch_end(self, *_):
            self.steps += 1

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    audit, module = callback(trained_by_lightning, quiet=True), Module()
    trainer = lightning.Trainer(
        max_steps=2, callbacks=[audit], logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accelerator="cpu", default_root_dir=tmp_path,
    )  # fmt: skip
    rows = torch.utils.data.DataLoader(ROWS, batch_size=8)
    if mode == "train":
        with pytest.warns(UserWarning, match="the dropout of Module was not audited: watched"):
            trainer.fit(module, rows)
    else:
        trainer.fit(module, rows)

    assert module.steps == 2
    assert (audit.report is None) == (mode == "train")
    assert mode == "train" or audit.report.stopped == "eval: ArithmeticError: eval"


def test_a_module_that_optimizes_by_hand_is_not_run_unasked(tmp_path):
    with pytest.raises(ValueError, match="call must be given for a module with manual optimization"):
        trained_by_lightning(tmp_path, [callback(trained_by_lightning)], by_hand=True)
