"""The callback for the Trainer of transformers: training is the same bit for bit, alarms stop it."""

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

import ketwork as kw
from ketwork.integrations.transformers import MonitorCallback

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"
)

TOKENS = torch.randint(3, 30, (64, 6), generator=torch.Generator().manual_seed(1))
ROWS = [
    {"input_ids": row, "attention_mask": torch.ones(6, dtype=torch.long), "labels": row[0] % 2}
    for row in TOKENS
]


def trained(folder, callback=None):
    torch.manual_seed(0)
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=30,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=8,
        )
    )
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=200,
        per_device_train_batch_size=8,
        learning_rate=1e-3,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
        bf16=True,
        logging_strategy="no",
    )
    trainer = Trainer(model, arguments, train_dataset=ROWS, callbacks=[] if callback is None else [callback])
    trainer.train()
    return model, trainer


def test_training_is_the_same_and_looks_come_at_the_steps(tmp_path):
    callback = MonitorCallback(ROWS, every=50)
    without, with_it = (trained(tmp_path, each)[0] for each in (None, callback))
    assert all(map(torch.equal, without.state_dict().values(), with_it.state_dict().values()))
    run = kw.MonitorRun.load(tmp_path / "ketwork-run")
    assert (run.steps, run.ended) == ((0, 50, 100, 150, 200), True)
    assert {"bert.encoder.layer.0", "bert.encoder.layer.1"} <= {layer.layer for layer in run.looks[0].layers}
    assert "linear_balanced" in run.quantities


def test_an_alarm_stops_the_training(tmp_path):
    class Breaking(MonitorCallback):
        def on_step_end(self, args, state, control, model=None, **rest):
            if state.global_step == 4:
                with torch.no_grad():
                    model.classifier.weight[:] = float("nan")
            return super().on_step_end(args, state, control, model=model, **rest)

    _, trainer = trained(tmp_path, Breaking(ROWS, every=4, action="stop"))
    assert trainer.state.global_step == 4
