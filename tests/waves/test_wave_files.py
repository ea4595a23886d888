"""Waves and runs in files: what is read is what was written, with and without the user's own module."""

import json
import random

import networkx
import pytest
import torch
from torch import nn

from ketwork import waves
from ketwork.records import files
from ketwork.waves.models import specs

CHAIN, SQUARE = waves.chain(4), waves.square(2)
NETWORKS = {
    "rbm": lambda: waves.RBM(alpha=1.5, std=0.1),
    "complex rbm": lambda: waves.RBM(2, dtype=torch.complex64),
    "jastrow": lambda: waves.Jastrow(dtype=torch.float64),
    "dense": lambda: waves.FeedForward((5, 3), phase=True),
    "masked": lambda: waves.MaskedDense(3, phase=True),
    "transformer": lambda: waves.CausalTransformer(8, 2, 1),
    "symmetric": lambda: waves.SymmetricRBM(CHAIN.translations(), 2),
    "vision": lambda: waves.VisionTransformer(SQUARE, 1, 4, 2, 1),
    "projected": lambda: waves.Symmetrized(
        waves.RBM(dtype=torch.complex128), CHAIN.translations(), torch.tensor([1.0, -1, 1, -1])
    ),
    "projected at π/2": lambda: waves.Symmetrized(
        waves.RBM(dtype=torch.complex128),
        CHAIN.translations(),
        torch.tensor([1, 1j, -1, -1j], dtype=torch.complex128),
    ),
}


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))
        self.register_buffer("shift", torch.randn(()))

    def forward(self, x):
        return self.net(x)[:, 0] + self.shift


@pytest.mark.parametrize("name", NETWORKS)
def test_a_wave_is_read_as_it_was_written(tmp_path, name) -> None:
    space = waves.spins(4)
    wave = waves.Wave(NETWORKS[name](), space, seed=3, signs=[1, 3] if name == "rbm" else None)
    wave.set_vector(wave.vector() * 1.5)
    path = wave.save(tmp_path / "wave.safetensors")
    read = waves.Wave.load(path)
    assert type(read.module) is type(wave.module)
    assert read.space == space
    assert read.signs == wave.signs
    assert torch.equal(read.vector(), wave.vector())
    assert torch.equal(read.log_amplitude(space.states()), wave.log_amplitude(space.states()))


def test_arguments_that_were_not_given_are_those_of_the_version_that_wrote(tmp_path) -> None:
    wave = waves.Wave(waves.Backflow((3,)), waves.electrons(3, 2, 1))
    path = wave.save(tmp_path / "wave.safetensors")
    assert waves.Wave.load(path).module.determinants == 4
    spec, tensors = specs.pack(waves.Backflow((3,), determinants=1), {}), {}
    assert spec["kwargs"]["jastrow"] is True
    del spec["kwargs"]["determinants"]  # as in files of the version whose default was 1
    assert specs.unpack(spec, tensors).determinants == 1


def test_spaces_with_sums_and_patterns(tmp_path) -> None:
    for space in (waves.electrons(3, 2, 1), waves.blockaded(waves.qubits(6), waves.chain(6).bonds())):
        wave = waves.Wave(waves.RBM(), space)
        assert waves.Wave.load(wave.save(tmp_path / "wave")).space == space


def test_the_users_own_module_is_given_anew(tmp_path) -> None:
    torch.manual_seed(0)
    wave = waves.Wave(Own(), waves.spins(4))
    path = wave.save(tmp_path / "wave")
    with pytest.raises(ValueError, match="its network, Own, is no file's to make: give it as `module`"):
        waves.Wave.load(path)
    read = waves.Wave.load(path, Own())
    x = wave.space.states()
    assert torch.equal(read.log_amplitude(x), wave.log_amplitude(x))  # the buffer, too
    with pytest.raises(ValueError, match="is not: RuntimeError"):
        waves.Wave.load(path, nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)))
    mixed = waves.Wave(waves.Symmetrized(Own(), CHAIN.translations()), waves.spins(4))
    with pytest.raises(ValueError, match="Symmetrized"):
        waves.Wave.load(mixed.save(path))


def test_a_network_on_a_graph(tmp_path) -> None:
    graph = waves.graph(networkx.path_graph(4))
    wave = waves.Wave(waves.SymmetricRBM(graph.symmetries(), 2), waves.spins(4))
    assert torch.equal(waves.Wave.load(wave.save(tmp_path / "wave")).vector(), wave.vector())


def test_a_run_is_read_as_it_was_written(tmp_path) -> None:
    H = waves.ising(waves.chain(6), 1.0)
    run = waves.ground_state(H, waves.Wave(waves.RBM(), H.space), steps=5, n_samples=64)
    read = waves.Run.load(run.save(tmp_path / "run"))
    assert read.energy.numbers() == run.energy.numbers()
    assert [step.numbers() for step in read.history] == [step.numbers() for step in run.history]
    assert (read.exact, read.ended, read.notes) == (run.exact, run.ended, run.notes)
    assert torch.equal(read.wave.vector(), run.wave.vector())
    assert str(read) == str(run)


def test_other_files_are_refused(tmp_path) -> None:
    path = tmp_path / "wave"
    with pytest.raises(FileNotFoundError, match="must be a saved wave, but there is no file"):
        waves.Wave.load(path)
    wave = waves.Wave(waves.RBM(), waves.spins(4))
    wave.save(path)
    with pytest.raises(ValueError, match=r"must be a saved run.*a file of something else"):
        waves.Run.load(path)
    tensors, about, _ = files.read_tensors(path, "ketwork.wave")
    for change in (
        {"network": {"class": "Evil", "args": [], "kwargs": {}}},
        {"network": {"class": "RBM", "args": [], "kwargs": {"nonsense": 1}}},
        {"network": {"class": "RBM"}},
        {"space": {"sites": 4}},
        {"signs": [99]},
    ):
        files.write_tensors(path, tensors, {"schema": 1, "wave": {**about["wave"], **change}}, "ketwork.wave")
        with pytest.raises(ValueError, match="must be"):
            waves.Wave.load(path)


def test_damaged_files_are_refused_or_read_to_the_same(tmp_path) -> None:
    path, draw = tmp_path / "wave", random.Random(0)
    wave = waves.Wave(waves.RBM(), waves.spins(4))
    whole = wave.save(path).read_bytes()
    for _ in range(60):
        broken = bytearray(whole)
        broken[draw.randrange(len(broken))] ^= 1 << draw.randrange(8)
        path.write_bytes(bytes(broken))
        try:
            read = waves.Wave.load(path)
        except ValueError:
            continue
        assert torch.equal(read.vector(), wave.vector())


def test_the_file_holds_plain_json(tmp_path) -> None:
    path = waves.Wave(waves.SymmetricRBM(CHAIN.translations(), 2), waves.spins(4)).save(tmp_path / "wave")
    _, about, _ = files.read_tensors(path, "ketwork.wave")
    assert json.loads(json.dumps(about))["wave"]["network"]["class"] == "SymmetricRBM"
