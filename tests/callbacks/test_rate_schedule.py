"""The callbacks move the rates of a real training loop, and continue from its checkpoints."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dropkit.schedules import Early, Linear

# Both import torchvision if it is there.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("torchvision")]

ROWS = [{"x": torch.randn(4, generator=torch.Generator().manual_seed(i)), "labels": i % 2} for i in range(16)]


class Net(nn.Module):
    """Notes the rate of each training step: four an epoch."""

    def __init__(self):
        super().__init__()
        self.dropout, self.path, self.head, self.rates = nn.Dropout(0.5), nn.Dropout1d(0.4), nn.Linear(4, 2), []

    def forward(self, x, labels=None):
        self.rates.append(self.dropout.p)
        logits = self.head(self.path(self.dropout(x)))
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


def trained_by_hugging_face(folder, callbacks, epochs, resume=False):
    from transformers import Trainer, TrainingArguments

    model = Net()
    arguments = TrainingArguments(
        folder, num_train_epochs=epochs, per_device_train_batch_size=4, report_to=[], save_strategy="steps",
        save_steps=0.5, disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    Trainer(model, arguments, train_dataset=ROWS, callbacks=callbacks).train(
        resume_from_checkpoint=str(folder / "checkpoint-6") if resume else None
    )
    return model


def trained_by_lightning(folder, callbacks, epochs, resume=False):
    import lightning.pytorch as lightning
    from lightning.pytorch.callbacks import ModelCheckpoint

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Net()

        def training_step(self, batch):
            return self.net(**batch)["loss"]

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    saving = ModelCheckpoint(folder, "{step}", every_n_train_steps=6, save_top_k=-1)
    module = Module()
    lightning.Trainer(
        max_epochs=epochs, callbacks=[*callbacks, saving], logger=False, enable_progress_bar=False,
        enable_model_summary=False, accelerator="cpu", default_root_dir=folder,
    ).fit(
        module,
        torch.utils.data.DataLoader(ROWS, batch_size=4),
        ckpt_path=str(folder / "step=6.ckpt") if resume else None,
        weights_only=False,
    )  # fmt: skip
    return module.net


def callback(loop, *arguments, **options):
    if loop is trained_by_hugging_face:
        from dropkit.callbacks.transformers import DropoutSchedule
    else:
        from dropkit.callbacks.lightning import DropoutSchedule
    return DropoutSchedule(*arguments, **options)


each_loop = pytest.mark.parametrize("loop", [trained_by_hugging_face, trained_by_lightning])


@each_loop
@pytest.mark.parametrize(
    ("interval", "expected"),
    [("step", [0.5 * step / 12 for step in range(12)]), ("epoch", [0.5 * (step // 4) / 12 for step in range(12)])],
)
def test_rates_follow_steps_or_epochs_also_after_a_checkpoint(loop, interval, expected, tmp_path):
    """The training from a checkpoint in the middle of an epoch has the rates of the one without a break."""
    made = [callback(loop, Linear(12), interval=interval) for _ in range(2)]

    whole = loop(tmp_path, [made[0]], epochs=3)
    rest = loop(tmp_path, [made[1]], epochs=3, resume=True)

    assert whole.rates == expected
    assert rest.rates == expected[6:]
    assert made[0].schedule.get_last_rate() == made[1].schedule.get_last_rate()


@each_loop
def test_two_schedules_move_their_own_sites(loop, tmp_path):
    """Each has its part of a checkpoint."""
    several = [callback(loop, Early(1), sites="*dropout"), callback(loop, Linear(8, start=0.5), sites="*path")]

    loop(tmp_path, several, epochs=2)

    assert [list(each.schedule.get_last_rate().values()) for each in several] == [[0.0], [0.4 * (0.5 + 0.5 * 7 / 8)]]


def test_an_interval_that_is_none_is_refused():
    """Where the callback is made."""
    with pytest.raises(ValueError, match="interval must be step or epoch, got batch"):
        callback(trained_by_hugging_face, Linear(3), interval="batch")
