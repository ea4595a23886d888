"""What a monitor costs a training run, and whether its alarms are right.

Alarms: SimSiam (Chen and He 2021) on the images of handwritten digits in scikit-learn, with and without its
stop-gradient, which is known to collapse; and healthy runs of other kinds: a supervised CNN with BatchNorm and
dropout, a character transformer with AdamW, an autoencoder. Targets: every run without stop-gradient is flagged
before a tenth of it is over, and no healthy run raises an alarm.

Cost: a transformer of ten million parameters at the monitor's defaults, every 500 steps on 512 samples. Targets: at
most 2 % of the training time; a look at most 1.5 forward passes over the probe set and 50 ms.

    python benchmarks/monitor.py [--seeds 5] [--first 0] [--part alarms|cost] [--kinds simsiam …]
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

import ketwork as kw

STEPS, EVERY, BATCH, PROBE = 1400, 10, 128, 256  # 100 epochs of 1,797 images, as SimSiam's own runs
FLAGGED = 0.1
SHARE, PASSES, FIXED = 0.02, 1.5, 0.05


class SimSiam(nn.Module):
    """Encoder, projector and predictor."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.projector = nn.Sequential(
            nn.Linear(64, 128, bias=False),
            nn.BatchNorm1d(128),
            nn.ReLU(),
            nn.Linear(128, 128, bias=False),
            nn.BatchNorm1d(128, affine=False),
        )
        self.predictor = nn.Sequential(
            nn.Linear(128, 32, bias=False), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 128)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.predictor(self.projector(self.encoder(x)))


class Characters(nn.Module):
    """A causal transformer over characters."""

    def __init__(self, symbols: int, d: int, layers: int, heads: int, length: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, d)
        self.place = nn.Parameter(torch.zeros(length, d))
        layer = nn.TransformerEncoderLayer(d, heads, 4 * d, 0.0, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(d, symbols)
        nn.init.normal_(self.place, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1], device=tokens.device)
        x = self.embedding(tokens) + self.place[: tokens.shape[1]]
        return self.head(self.layers(x, mask=mask, is_causal=True))


def digits() -> tuple[Tensor, Tensor]:
    table = load_digits()
    return torch.tensor(table.images, dtype=torch.float32)[:, None] / 8 - 1, torch.tensor(table.target)


def augmented(x: Tensor) -> Tensor:
    """A view: shifted by up to a pixel, brighter or darker, with noise, a patch erased."""
    n = len(x)
    padded = F.pad(x, (1, 1, 1, 1), value=-1.0)
    i, j = torch.randint(3, (2, n))
    rows, columns = i[:, None] + torch.arange(8), j[:, None] + torch.arange(8)
    x = padded[torch.arange(n)[:, None, None], 0, rows[:, :, None], columns[:, None, :]][:, None]
    x = x * (0.6 + 0.8 * torch.rand(n, 1, 1, 1)) + 0.2 * torch.randn(x.shape)
    corner = torch.randint(7, (2, n, 1, 1))
    place = torch.arange(8)
    hidden = (place[:, None] - corner[0]).abs().le(1) & (place - corner[1]).abs().le(1)
    return torch.where(hidden[:, None], torch.full_like(x, -1.0), x)


Training = tuple[nn.Module, object, Callable[[], Tensor], torch.optim.Optimizer]

UNSEEN = 2 * PROBE  # digits that the supervised network is not trained on


def simsiam(stop: bool) -> Training:
    x, _y = digits()
    model = SimSiam()

    def loss() -> Tensor:
        batch = x[torch.randint(len(x), (BATCH,))]
        first, second = (model.projector(model.encoder(augmented(batch))) for _ in range(2))
        targets = (first.detach(), second.detach()) if stop else (first, second)
        p, q = model.predictor(first), model.predictor(second)
        return -(F.cosine_similarity(p, targets[1]).mean() + F.cosine_similarity(q, targets[0]).mean()) / 2

    return model, x, loss, torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)


def supervised() -> Training:
    x, y = digits()
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(512, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )

    def loss() -> Tensor:
        which = torch.randint(UNSEEN, len(x), (BATCH,))
        return F.cross_entropy(model(augmented(x[which])), y[which])

    return (
        model,
        (x[UNSEEN:], y[UNSEEN:]),
        loss,
        torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4),
    )


def characters() -> Training:
    text = torch.tensor([ord(c) % 96 for c in load_digits().DESCR + torch.nn.Module.__doc__ * 4])
    model = Characters(96, 32, 2, 4, 32)
    starts = torch.arange(len(text) - 33)
    windows = text[starts[::8][:, None] + torch.arange(32)][:512]

    def loss() -> Tensor:
        rows = text[starts[torch.randint(len(starts), (16,))][:, None] + torch.arange(33)]
        return F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())

    return model, windows, loss, torch.optim.AdamW(model.parameters(), lr=1e-3)


def autoencoder() -> Training:
    x = digits()[0].flatten(1)
    model = nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 16), nn.Linear(16, 128), nn.ReLU(), nn.Linear(128, 64)
    )

    def loss() -> Tensor:
        batch = x[torch.randint(len(x), (BATCH,))]
        return (model(batch) - batch).square().mean()

    return model, x, loss, torch.optim.Adam(model.parameters(), lr=1e-3)


COLLAPSING = "SimSiam without stop-gradient"
KINDS: dict[str, Callable[[], Training]] = {
    COLLAPSING: lambda: simsiam(False),
    "SimSiam": lambda: simsiam(True),
    "supervised CNN": supervised,
    "character transformer": characters,
    "autoencoder": autoencoder,
}


def watched(kind: str, seed: int, steps: int, folder: str, action: str = "warn") -> kw.MonitorRun:
    """The run; with `action="stop"` up to its first alarm."""
    torch.manual_seed(seed)
    model, data, loss, optimizer = KINDS[kind]()
    held_out = tuple(part[:UNSEEN] for part in digits()) if kind == "supervised CNN" else None
    options = {"held_out": held_out, "max_samples": PROBE, "path": folder, "action": action}
    monitor = kw.Monitor(model, data, every=EVERY, **options)
    with contextlib.suppress(kw.StopTraining):
        for step in range(steps + 1):
            monitor(step)
            value = loss()
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    return monitor.run


def alarms(seeds: range, kinds: list[str]) -> None:
    print(
        f"{STEPS:,} steps, a look every {EVERY} at {PROBE} samples, seeds {seeds[0]} to {seeds[-1]}",
        flush=True,
    )
    for kind in kinds:
        first = []
        for seed in seeds:
            with tempfile.TemporaryDirectory() as folder:
                run = watched(kind, seed, STEPS, folder, action="stop")
            first.append(run.alarms[0].step if run.alarms else None)
            if not run.alarms:
                print(f"  {kind}, seed {seed}: no alarm in {len(run)} looks", flush=True)
            for alarm in run.alarms:
                where = f"{alarm.title} at {alarm.layer}, step {alarm.step}, {alarm.quantity}"
                print(f"  {kind}, seed {seed}: {where} {alarm.change}", flush=True)
        if kind == COLLAPSING:
            early = sum(step is not None and step < FLAGGED * STEPS for step in first)
            print(
                f"{kind}: {early} of {len(seeds)} flagged before step {FLAGGED * STEPS:.0f} (target: all)",
                flush=True,
            )
        else:
            wrong = sum(step is not None for step in first)
            print(f"{kind}: {wrong} of {len(seeds)} raise an alarm (target: none)", flush=True)


def timed(call: Callable[[], object], repeats: int) -> float:
    """Median seconds of a call."""
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def cost(repeats: int, batch: int, length: int) -> None:
    torch.manual_seed(0)
    model = Characters(96, 384, 6, 6, length)
    count = sum(p.numel() for p in model.parameters())
    tokens = torch.randint(96, (4096, length + 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    probe = tokens[:512, :-1]

    def step() -> None:
        rows = tokens[torch.randint(len(tokens), (batch,))]
        loss = F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def forward() -> None:
        model.eval()
        with torch.no_grad():
            for part in probe.split(256):
                model(part)
        model.train()

    with tempfile.TemporaryDirectory() as folder:
        monitor = kw.Monitor(model, probe, path=folder, alarms=True)
        monitor.look(0)
        number = iter(range(1, 10**6))
        step()
        for_step, for_pass, for_look = [], [], []
        for _ in range(repeats):  # alternating, so that a slower minute is one for all
            for_step.append(timed(step, 1))
            for_pass.append(timed(forward, 1))
            for_look.append(timed(lambda: monitor.look(next(number)), 1))
    one_step, one_pass, one_look = map(statistics.median, (for_step, for_pass, for_look))
    share = one_look / (500 * one_step)
    most = PASSES * one_pass + FIXED
    print(
        f"{count:,} parameters, {length} characters, batches of {batch}: a step {one_step:.3f} s, a forward pass over "
        f"512 samples {one_pass:.3f} s, a look {one_look:.3f} s"
    )
    print(f"share of the training time, a look every 500 steps: {share:.2%} (target: at most {SHARE:.0%})")
    print(
        f"a look: {one_look / one_pass:.2f} passes; {one_look:.3f} s "
        f"(target: at most {PASSES} passes + 50 ms = {most:.3f} s)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--first", type=int, default=0, help="the first seed; the rules were chosen on 0 to 4"
    )
    parser.add_argument("--part", choices=("alarms", "cost"))
    parser.add_argument("--kinds", nargs="*", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--length", type=int, default=64)
    options = parser.parse_args()
    if options.part != "cost":
        alarms(range(options.first, options.first + options.seeds), options.kinds)
    if options.part != "alarms":
        cost(options.repeats, options.batch, options.length)


if __name__ == "__main__":
    main()
