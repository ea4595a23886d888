"""A compressed network goes through its own file, state dicts, torch.export and ONNX; the first without ketwork."""

import copy
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import ketwork as kw
from ketwork.demo import digits
from ketwork.networks.compression import loader


class Shared(nn.Module):
    """A module under two names, BatchNorm, a convolution over a sequence, and tied weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv1d(4, 32, 3, padding=1, bias=False), nn.BatchNorm1d(32)
        self.a = nn.Linear(32, 32)
        self.b = self.a
        self.head, self.twin = nn.Linear(32, 6, bias=False), nn.Linear(32, 6, bias=False)
        self.twin.weight = self.head.weight

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.norm(self.conv(x))).mean(-1)
        h = torch.tanh(self.b(torch.tanh(self.a(h))))
        return self.head(h) + self.twin(h)


def shared() -> nn.Module:
    net = Shared()
    for _ in range(3):
        net(torch.randn(40, 4, 9, generator=torch.Generator().manual_seed(1)))
    return net.eval()


def encoder() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 2, 64, batch_first=True), 1, enable_nested_tensor=False),
        nn.Linear(32, 5),
    ).eval()  # fmt: skip


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


CASES = {
    "convolutions": (digits.model, lambda n: digits.training()[0][:n], 0.4),
    "shared, tied and folded": (shared, lambda n: normal(n, 4, 9), 0.8),
    "torch's encoder": (encoder, lambda n: normal(n, 6, 32), 0.85),
}
_made: dict[str, tuple[nn.Module, kw.Compressed, Tensor]] = {}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, kw.Compressed, Tensor]:
    if request.param not in _made:
        build, data, keep = CASES[request.param]
        net = build()
        result = kw.compress(net, data(120), keep=keep)
        assert result.table()[["rank", "units"]].notna().any(axis=None)
        _made[request.param] = net, result, data(7)
    return _made[request.param]


def test_its_own_file(case, tmp_path: Path) -> None:
    net, result, x = case
    result.save(tmp_path / "small.safetensors")
    fresh = copy.deepcopy(net)
    for parameter in fresh.parameters():
        nn.init.constant_(parameter, 7.0)
    small = kw.load_compressed(str(tmp_path / "small.safetensors"), fresh)
    with torch.no_grad():
        torch.testing.assert_close(small(x), result.model(x), atol=0, rtol=0)
    assert sum(p.numel() for p in small.parameters()) == result.after.parameters


def test_a_state_dict(case) -> None:
    _, result, x = case
    file = io.BytesIO()
    torch.save(result.model.state_dict(), file)
    file.seek(0)
    fresh = copy.deepcopy(result.model)
    for parameter in fresh.parameters():
        nn.init.zeros_(parameter)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    with torch.no_grad():
        torch.testing.assert_close(fresh(x), result.model(x), atol=0, rtol=0)


def test_torch_export(case, tmp_path: Path) -> None:
    _, result, x = case
    batch = torch.export.Dim("batch", min=2, max=64)
    exported = torch.export.export(result.model, (x,), dynamic_shapes=({0: batch},))
    torch.export.save(exported, tmp_path / "small.pt2")
    again = torch.export.load(tmp_path / "small.pt2").module()
    with torch.no_grad():
        for some in (x, x[:3]):
            torch.testing.assert_close(again(some), result.model(some), atol=1e-5, rtol=1e-4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # torch's exporter's own
def test_onnx(case, tmp_path: Path) -> None:
    import onnxruntime

    _, result, x = case
    path = str(tmp_path / "small.onnx")
    torch.onnx.export(result.model, (x,), path, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), result.model(x), atol=1e-4, rtol=1e-3)


def test_without_ketwork(tmp_path: Path) -> None:
    """A copy of the loader alone, in a process where ketwork cannot be imported."""
    net, x = digits.model(), digits.training()[0][:120]
    result = kw.compress(net, x, keep=0.4)
    result.save(tmp_path / "small.safetensors")
    (tmp_path / "loader.py").write_text(Path(loader.__file__).read_text())
    torch.save(x[:5], tmp_path / "x.pt")
    script = """
import json, sys
from collections import OrderedDict
sys.modules["ketwork"] = None  # importing it raises
import torch
from torch import nn
from loader import load_compressed
net = nn.Sequential(OrderedDict(
    conv1=nn.Conv2d(1, 16, 3, padding=1), relu1=nn.ReLU(), conv2=nn.Conv2d(16, 32, 3, padding=1), relu2=nn.ReLU(),
    pool=nn.MaxPool2d(2), flatten=nn.Flatten(), hidden=nn.Linear(512, 48), relu3=nn.ReLU(), readout=nn.Linear(48, 10)))
small = load_compressed("small.safetensors", net)
kinds = sorted({type(module).__module__ for module in small.modules()})
print(json.dumps({"y": small(torch.load("x.pt")).tolist(), "kinds": kinds,
                  "ketwork": [name for name in sys.modules if name.startswith("ketwork.")]}))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    torch.testing.assert_close(torch.tensor(told["y"]), result.model(x[:5]).detach(), atol=1e-6, rtol=1e-5)
    assert told["ketwork"] == []
    assert all(kind.startswith("torch.nn.") for kind in told["kinds"])
