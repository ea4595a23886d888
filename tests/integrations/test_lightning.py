"""The callback for Lightning: training is the same bit for bit, looks come at the optimizer's steps, alarms stop."""

import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import ketwork as kw
from ketwork.integrations.lightning import MonitorCallback

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from pytorch_lightning import LightningModule, Trainer

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"
)

X = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(1))
Y = torch.arange(64) % 4


class Module(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(144, 4)
        )

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, _):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def trained(folder, callback=None, steps=200, **options):
    torch.manual_seed(0)
    module = Module()
    trainer = Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[] if callback is None else [callback],
        **options,
    )
    trainer.fit(module, DataLoader(TensorDataset(X, Y), 16, shuffle=True))
    return module, trainer


def test_training_is_the_same_and_looks_come_at_the_optimizers_steps(tmp_path):
    callback = MonitorCallback((X, Y), every=50)
    options = {"accumulate_grad_batches": 2}
    without, with_it = (trained(tmp_path, each, **options)[0] for each in (None, callback))
    assert all(map(torch.equal, without.state_dict().values(), with_it.state_dict().values()))
    run = kw.MonitorRun.load(tmp_path / "ketwork-run")
    assert run.steps == (0, 50, 100, 150, 200)
    assert run.ended
    assert {layer.layer for layer in run.looks[0].layers} >= {"net.0", "net.5"}


def test_an_alarm_stops_the_training_and_a_part_can_be_watched(tmp_path):
    class Breaking(MonitorCallback):
        def on_train_batch_end(self, trainer, pl_module, *rest):
            if trainer.global_step == 4:
                with torch.no_grad():
                    pl_module.net[0].weight[:] = float("nan")
            super().on_train_batch_end(trainer, pl_module, *rest)

    callback = Breaking(X, every=2, module="net", action="stop")
    _, trainer = trained(tmp_path, callback)
    assert trainer.global_step == 4
    assert [(alarm.kind, alarm.layer) for alarm in callback.monitor.alarms] == [("not_finite", "0")]
