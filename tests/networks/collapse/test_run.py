"""`collapse`: what the network continues with, against formulas, statistics and hooks made by hand."""

import math
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.checkpoint import checkpoint

import ketwork as kw


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=dtype)


def orthonormal(d: int, k: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.linalg.qr(normal(d, d, seed=seed, dtype=dtype)).Q[:, :k]


def restored(after: Tensor, before: Tensor, dim: int = -1) -> Tensor:
    return after * (before.norm(dim=dim, keepdim=True) / after.norm(dim=dim, keepdim=True))


def wire() -> nn.Sequential:
    """A network that passes on what it is given."""
    return nn.Sequential(nn.Identity())


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))


def hooks(model: nn.Module) -> int:
    return sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._forward_hooks_always_called)
        for m in model.modules()
    )


@pytest.fixture(scope="module")
def sentences(minilm: Path) -> tuple[nn.Module, dict[str, Tensor]]:
    """The sentence transformer and a padded batch."""
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModel.from_pretrained(minilm).eval()
    texts = ["you have won a prize", "see you", "the lecture begins at nine in the old hall"]
    return model, dict(
        transformers.AutoTokenizer.from_pretrained(minilm)(texts, padding=True, return_tensors="pt")
    )


def test_projection_onto_everything_changes_no_bit_of_the_digit_network(
    digit_network: nn.Module, mnist: tuple[Tensor, Tensor]
) -> None:
    images = mnist[0][:200]
    study = kw.study(digit_network, images)
    before = digit_network(images)
    for row in study:
        everything = [row.d, torch.eye(row.d), list(range(row.d)), orthonormal(row.d, row.d)]
        for what in everything:
            with kw.collapse(digit_network, {row.name: what}, study=study):
                assert torch.equal(digit_network(images), before), row.name


def test_projection_onto_everything_changes_no_bit_of_a_transformer(
    sentences: tuple[nn.Module, dict[str, Tensor]],
) -> None:
    model, batch = sentences
    study = kw.study(model, [batch])
    before = model(**batch)
    whole = {row.name: row.d for row in study}
    regions = {"encoder.layer.*": kw.Positions(slice(None))}
    for measured in (whole, regions):
        with kw.collapse(model, measured, study=study):
            after = model(**batch)
        assert type(after) is type(before)
        assert torch.equal(after.last_hidden_state, before.last_hidden_state)
        assert torch.equal(after.pooler_output, before.pooler_output)


class Pair(nn.Module):
    """Puts out what its layer does, and something beside it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.body = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.body(x), x.cos()


class PairOnce(nn.Module):
    """A layer inside of a block whose output has it at another place."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Pair()

    def forward(self, x: Tensor) -> Tensor:
        return 2 * self.block(x)[0]


def test_a_tensor_that_two_modules_put_out_is_changed_where_each_has_it() -> None:
    """The study has one row for both, under the name of the outer one, whose output is a tuple."""
    net, x, basis = PairOnce(), normal(60, 5), orthonormal(5, 2)
    study = kw.study(net, x, layers="all")
    row = study["block"]
    assert row.accumulator.info.aliases == ("block.body",)
    with torch.no_grad():
        before = net(x)
    for name in ("block", "block.body"):
        with kw.collapse(net, {name: basis}, study=study), torch.no_grad():
            after = net(x)
        torch.testing.assert_close(after, restored(before @ basis @ basis.T, before))


def test_projection_is_the_formula_with_norms_restored() -> None:
    x, basis = normal(6, 4, 5), orthonormal(5, 2)
    net = wire()
    with kw.collapse(net, {"0": basis}):
        kept = net(x)
    with kw.collapse(net, {"0": basis}, "remove"):
        left = net(x)
    projected = x @ basis @ basis.T
    assert torch.allclose(kept, restored(projected, x), atol=1e-6)
    assert torch.allclose(left, restored(x - projected, x), atol=1e-6)
    assert torch.allclose(kept.norm(dim=-1), x.norm(dim=-1), rtol=1e-6)
    assert torch.allclose((kept * left).sum(-1), torch.zeros(6, 4), atol=1e-5)


def test_removing_one_direction_is_directional_ablation() -> None:
    net, x = mlp(), normal(20, 5, dtype=torch.float64)
    net.double()
    direction = orthonormal(7, 1, dtype=torch.float64)
    hidden = torch.tanh(net[0](x))
    ablated = hidden - (hidden @ direction) * direction.T
    with kw.collapse(net, {"1": direction}, "remove"):
        found = net(x)
    assert torch.allclose(found, net[2](restored(ablated, hidden)), atol=1e-13)


@pytest.mark.parametrize("mode", ["project", "remove"])
def test_neurons_equal_a_hook_made_by_hand(
    digit_network: nn.Module, mnist: tuple[Tensor, Tensor], mode: str
) -> None:
    """Channels of a convolution: the norm over channels, pixel by pixel."""
    images = mnist[0][:50]
    name, module = next((n, m) for n, m in digit_network.named_modules() if isinstance(m, nn.Conv2d))
    channels = [0, 3, 4]

    def by_hand(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        keep = torch.zeros(output.shape[1]) if mode == "project" else torch.ones(output.shape[1])
        keep[channels] = 1 if mode == "project" else 0
        return restored(output * keep[:, None, None], output, dim=1)

    handle = module.register_forward_hook(by_hand)
    expected = digit_network(images)
    handle.remove()
    with kw.collapse(digit_network, {name: channels}, mode):
        assert torch.allclose(digit_network(images), expected, atol=1e-4)
    assert not torch.allclose(digit_network(images), expected, atol=1e-2)


def test_the_rank_means_the_leading_eigenstates_of_that_layer(
    digit_network: nn.Module, mnist: tuple[Tensor, Tensor]
) -> None:
    images = mnist[0][:100]
    study = kw.study(digit_network, images)
    row = study.layers[-2]
    basis = row.density.eigenstates(3)[1]
    outputs = []
    for what in (3, basis, basis.amplitudes.mT):
        with kw.collapse(digit_network, {row.name: what}, study=study):
            outputs.append(digit_network(images))
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])


def test_samples_follow_borns_rule() -> None:
    """Three directions of five: four outcomes, the last of which keeps its superposition."""
    x, basis = normal(5, seed=3), orthonormal(5, 3)
    amplitudes = basis.T @ x
    exact, weight = basis.double().T @ x.double(), x.double().square().sum()
    born = torch.cat([exact.square(), (weight - exact.square().sum())[None]]) / weight
    net, shots = wire(), 20_000
    with kw.collapse(net, {"0": basis}, "sample", seed=seeded(1)) as live:
        after = net(x.expand(shots, 5))
    drawn = live.outcomes["0", 0][:, 0]
    counts = drawn.bincount(minlength=4).numpy()
    assert stats.chisquare(counts, (born * shots).numpy()).pvalue > 1e-3
    for k in range(3):
        expected = x.norm() * amplitudes[k].sign() * basis[:, k]
        assert torch.allclose(after[drawn == k], expected.expand(int(counts[k]), 5), atol=1e-5)
    rest = restored(x - basis @ amplitudes, x)
    assert torch.allclose(after[drawn == 3], rest.expand(int(counts[3]), 5), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_a_repeated_measurement_gives_the_same_outcome(dtype: torch.dtype) -> None:
    basis = orthonormal(6, 4, dtype=dtype)
    net = nn.Sequential(nn.Identity(), nn.Identity())
    with kw.collapse(net, {("0", "1"): basis}, "sample", seed=seeded()) as live:
        after = net(normal(500, 3, 6, dtype=dtype))
    assert torch.equal(live.outcomes["0", 0], live.outcomes["1", 0])
    assert len(live.outcomes["0", 0].unique()) == 5
    assert after.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_dephasing_leaves_nothing_but_the_squared_amplitudes(dtype: torch.dtype) -> None:
    """Averaged over the phases, |b⟩⟨b| = Σ Pₖ|a⟩⟨a|Pₖ, the rest's superposition included."""
    x, basis = normal(4, dtype=dtype), orthonormal(4, 2, dtype=dtype)
    rows = x.expand(40_000, 4)
    net = wire()
    with kw.collapse(net, {"0": basis}, "dephase", seed=seeded()):
        after = net(rows)
    assert torch.allclose((after @ basis.conj()).abs(), (rows @ basis.conj()).abs(), atol=1e-12)
    found = after.mT @ after.conj() / len(after)
    parts = [*(b[:, None] * (b.conj() @ x) for b in basis.T), (x - basis @ (basis.mH @ x))[:, None]]
    expected = sum((p.flatten()[:, None] * p.flatten().conj() for p in parts), torch.zeros(4, 4, dtype=dtype))
    # Standard errors of a mean of 40,000 terms of size |x|²
    assert (found - expected).abs().max() < 5 * x.norm() ** 2 / math.sqrt(40_000)
    assert (torch.outer(x, x.conj()) - expected).abs().max() > 0.1 * x.norm() ** 2


def test_the_phase_of_an_eigenstate_does_not_matter_to_dephasing() -> None:
    """The distribution is that of the basis with other signs: the same draws give the same outputs."""
    x, basis = normal(50, 4), orthonormal(4, 4)
    net, outputs = wire(), []
    for signs in (torch.ones(4), torch.tensor([1.0, -1.0, -1.0, 1.0])):
        with kw.collapse(net, {"0": basis * signs}, "dephase", seed=seeded()):
            outputs.append(net(x))
    assert torch.allclose(*outputs, atol=1e-6)


def test_commuting_projections_may_change_places() -> None:
    x, basis = normal(30, 6), orthonormal(6, 6)
    first, second, other = basis[:, :4], basis[:, 2:], orthonormal(6, 4, seed=5)
    net = wire()

    def both(a: Tensor, b: Tensor) -> Tensor:
        with kw.collapse(net, {"0": a}), kw.collapse(net, {"0": b}):
            return net(x)

    assert torch.allclose(both(first, second), both(second, first), atol=1e-5)
    with kw.collapse(net, {"0": basis[:, 2:4]}):
        assert torch.allclose(both(first, second), net(x), atol=1e-5)
    assert not torch.allclose(both(first, other), both(other, first), atol=1e-2)
    one_after_the_other = both(first, other)
    with kw.collapse(net, {"0": first, nn.Identity: other}):
        assert torch.allclose(net(x), one_after_the_other, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_gradients_flow_through_a_projection(dtype: torch.dtype) -> None:
    x = normal(3, 5, dtype=dtype).requires_grad_()
    net, basis = wire(), orthonormal(5, 2, dtype=dtype)

    def run(values: Tensor) -> Tensor:
        with kw.collapse(net, {"0": basis}):
            return net(values)

    assert torch.autograd.gradcheck(run, (x,))


def test_gradients_reach_the_weights_before_and_skip_what_is_removed() -> None:
    net, x = mlp(), normal(8, 5)
    with kw.collapse(net, {"0": [2, 5]}, "remove"):
        net(x).square().sum().backward()
    # Removed neurons act through the norm alone; a hand-made graph says the same.
    expected = mlp()
    hidden = expected[0](x)
    keep = torch.ones(7)
    keep[[2, 5]] = 0
    expected[2](torch.tanh(restored(hidden * keep, hidden))).square().sum().backward()
    assert torch.allclose(net[0].weight.grad, expected[0].weight.grad, atol=1e-5)
    zero = normal(2, 5).zero_().requires_grad_()
    plain = wire()
    with kw.collapse(plain, {"0": [1]}):
        plain(zero).sum().backward()
    assert bool(zero.grad.isfinite().all())


def test_around_the_mean() -> None:
    x = normal(400, 5, dtype=torch.float64) * torch.tensor([3.0, 2.0, 1.0, 0.5, 0.2]) + 4
    net = wire().double()
    study = kw.study(net, x, layers="0", normalize="ensemble")
    mean, basis = x.mean(0), torch.linalg.svd(x - x.mean(0)).Vh[:2].T
    with kw.collapse(net, {"0": 2}, study=study, center=True):
        found = net(x)
    shifted = x - mean
    assert torch.allclose(found, restored(shifted @ basis @ basis.T, shifted) + mean, atol=1e-10)
    with kw.collapse(net, {"0": [0, 1, 2, 3, 4]}, "remove", study=study, center=True):
        assert torch.allclose(net(x), mean.expand_as(x), atol=1e-12)  # mean ablation
    with kw.collapse(net, {"0": 5}, study=study, center=True):
        assert torch.equal(net(x), x)


def test_a_region_of_positions_is_of_the_whole_samples_ket() -> None:
    x, net = normal(4, 3, 5), wire()
    keep = torch.tensor([1.0, 0, 1])[:, None]
    expected = x * keep
    expected = expected * x.norm(dim=(1, 2), keepdim=True) / expected.norm(dim=(1, 2), keepdim=True)
    for which in ([0, 2], slice(0, 3, 2), keep[:, 0].bool()):
        with kw.collapse(net, {"0": kw.Positions(which)}):
            assert torch.allclose(net(x), expected, atol=1e-6)
    with kw.collapse(net, {"0": kw.Positions([1])}, "sample") as live:
        after = net(x.repeat(3000, 1, 1))
    drawn = live.outcomes["0", 0]
    shares = (x[:, 1].norm(dim=-1) / x.norm(dim=(1, 2))).square()
    hits = (drawn == 0).double().view(3000, 4).mean(0)
    assert torch.allclose(hits, shares.double(), atol=5 * 0.5 / math.sqrt(3000))
    assert torch.equal(after[drawn == 0][:, [0, 2]].abs().sum(), torch.zeros(()))


def test_padding_is_left_alone_and_counts_for_nothing(sentences: tuple[nn.Module, dict[str, Tensor]]) -> None:
    model, batch = sentences
    short = {key: value[1:2, : int(batch["attention_mask"][1].sum())] for key, value in batch.items()}
    words = kw.Positions([0, 1])
    for measured in ({"encoder.layer.2": words}, {"encoder.layer.2": [5, 7, 9]}):
        with kw.collapse(model, measured, "remove"):
            padded = model(**batch).last_hidden_state[1, : short["input_ids"].shape[1]]
            alone = model(**short).last_hidden_state[0]
        assert torch.allclose(padded, alone, atol=1e-4)


def test_a_projective_measurement_and_one_that_is_not() -> None:
    x, basis = normal(40, 4), orthonormal(4, 4)
    measurement = kw.Measurement.projective(basis, groups=[[0, 1], [2], [3]])
    net = wire()
    with kw.collapse(net, {"0": (measurement, 0)}):
        kept = net(x)
    with kw.collapse(net, {"0": basis[:, :2]}):
        assert torch.allclose(kept, net(x), atol=1e-6)
    with kw.collapse(net, {"0": (measurement, 0)}, "remove"):
        left = net(x)
    with kw.collapse(net, {"0": basis[:, 2:]}):
        assert torch.allclose(left, net(x), atol=1e-5)
    with kw.collapse(net, {"0": measurement}, "sample") as live:
        after = net(x)
    expected = measurement.collapse(kw.Ket.normalized(x), live.outcomes["0", 0][:, 0]).amplitudes
    assert torch.allclose(after, expected * x.norm(dim=-1, keepdim=True), atol=1e-5)

    angles = torch.tensor([0.0, 2, 4]) * math.pi / 3
    trine = torch.stack([angles.cos(), angles.sin()], dim=-1)
    effects = kw.Measurement.from_effects(2 / 3 * trine[:, :, None] * trine[:, None, :])
    rows = torch.tensor([1.0, 0]).expand(30_000, 2)
    with kw.collapse(net, {"0": effects}, "sample", seed=seeded()) as live:
        after = net(5 * rows)
    counts = live.outcomes["0", 0][:, 0].bincount(minlength=3).numpy()
    assert stats.chisquare(counts, [20_000, 5_000, 5_000]).pvalue > 1e-3  # Born: 2/3, 1/6, 1/6
    aligned = (after / 5 * trine[live.outcomes["0", 0][:, 0]]).sum(-1).abs()
    assert torch.allclose(aligned, torch.ones(30_000), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_so_and_is_measured_in_single(dtype: torch.dtype) -> None:
    x, basis = normal(10, 6).to(dtype), orthonormal(6, 2)
    net = wire()
    with kw.collapse(net, {"0": basis}):
        after = net(x)
    wide = x.float()
    assert after.dtype == dtype
    assert torch.equal(after, restored(wide @ basis @ basis.T, wide).to(dtype))


def test_a_module_called_twice_has_eigenstates_for_each_call() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.step = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.step(torch.tanh(self.step(x)))

    net, x = Twice(), normal(60, 4)
    study = kw.study(net, x, layers="step")
    bases = [study["step", call].density.eigenstates(2)[1].amplitudes.mT.float() for call in (0, 1)]
    first = net.step(x)
    second = net.step(torch.tanh(restored(first @ bases[0] @ bases[0].T, first)))
    with kw.collapse(net, {"step": 2}, study=study):
        assert torch.allclose(net(x), restored(second @ bases[1] @ bases[1].T, second), atol=1e-5)
    pooled = kw.study(net, x, layers="step", reading=kw.Reading(calls="pooled"))
    with kw.collapse(net, {"step": 2}, study=pooled):
        net(x)


class Outputs(nn.Module):
    """Returns the activation in one of many forms."""

    def __init__(self, form: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.form = form

    def forward(self, x: Tensor) -> object:
        return self.form(x)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize(
    ("form", "read"),
    [
        (lambda x: (x, "other"), lambda out: out[0]),
        (lambda x: [None, {"deep": (x,), "n": 3}], lambda out: out[1]["deep"][0]),
        (lambda x: torch.max(x[..., None].repeat(1, 1, 1, 2), dim=-1), lambda out: out.values),
        (lambda x: torch.nested.as_nested_tensor([row[: i % 3 + 1] for i, row in enumerate(x)]), None),
    ],
)
def test_outputs_of_any_form(form: Callable[[Tensor], object], read: Callable[..., Tensor] | None) -> None:
    x, net = normal(6, 3, 5), nn.Sequential(Outputs(form))
    with kw.collapse(net, {"0": [0, 1]}):
        output = net(x)
    expected = restored(x * torch.tensor([1.0, 1, 0, 0, 0]), x)
    assert type(output) is type(form(x))
    if read is not None:
        assert torch.allclose(read(output), expected, atol=1e-6)
    else:
        for i, row in enumerate(output.unbind()):
            assert torch.allclose(row, expected[i, : i % 3 + 1], atol=1e-6)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_what_follows_finds_the_same_strides(memory: torch.memory_format) -> None:
    """A network may take a `view` of a convolution's output, or run in channels-last."""
    x = normal(2, 5, 3, 4).contiguous(memory_format=memory)
    with kw.collapse(net := wire(), {"0": [0, 1]}, reading=kw.Reading(feature_axis=1)):
        after = net(x)
    assert after.stride() == x.stride()
    assert torch.allclose(after[:, :2], restored(x[:, :2], x, 1), atol=1e-6)


def test_packed_sequences() -> None:
    x, lengths = normal(4, 5, 3), torch.tensor([2, 5, 1, 3])

    class Packed(nn.Module):
        def forward(self, x: Tensor) -> object:
            return pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)

    net = nn.Sequential(Packed())
    with kw.collapse(net, {"0": [0, 2]}):
        padded, found = pad_packed_sequence(net(x), batch_first=True)
    assert torch.equal(found, lengths)
    expected = restored(x * torch.tensor([1.0, 0, 1]), x) * (torch.arange(5) < lengths[:, None])[..., None]
    assert torch.allclose(padded, expected, atol=1e-6)


def test_sequence_first_networks() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.LSTM(4, 6))
    x = normal(5, 7, 4)
    before = net(x)[0]
    with kw.collapse(net, {"0": [1, 2]}):
        after, (h, _) = net(x)
    assert torch.allclose(after, restored(before * torch.tensor([0.0, 1, 1, 0, 0, 0]), before), atol=1e-6)
    assert torch.equal(h, net(x)[1][0])


def test_compiled_networks_are_measured() -> None:
    net, x = mlp(), normal(5, 5)
    compiled = torch.compile(net, backend="eager")
    with kw.collapse(net, {"1": [0]}):
        expected = net(x)
    with kw.collapse(compiled, {"1": [0]}):
        assert torch.equal(compiled(x), expected)
    with kw.collapse(net, {"1": [0]}):
        assert torch.equal(compiled(x), expected)  # the wrapper was not what was named
    with kw.collapse(nn.DataParallel(net), {"1": [0]}) as _:
        assert torch.equal(nn.DataParallel(net)(x), expected)


def test_a_studied_network_may_be_collapsed() -> None:
    net, x = mlp(), normal(100, 5)
    with kw.collapse(net, {"0": orthonormal(7, 2)}):
        found = kw.study(net, x)
    assert found["0"].density.spectrum()[2] < 1e-6  # float32 activations
    assert hooks(net) == 0


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, GeneratorExit])
def test_nothing_remains(failure: type[BaseException]) -> None:
    net, x = mlp().train(), normal(5, 5)
    net[1].eval()
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    before = net(x)

    def fail() -> None:
        with kw.collapse(net, {"*": [0]}):
            assert [m.training for m in net.modules()] == [True, True, False, True]
            assert not torch.equal(net(x), before)
            if failure is KeyboardInterrupt:
                signal.raise_signal(signal.SIGINT)
            raise failure("stop")

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(failure):
            fail()
    finally:
        signal.signal(signal.SIGINT, handler)
    assert hooks(net) == 0
    assert torch.equal(net(x), before)
    assert [m.training for m in net.modules()] == [True, True, False, True]
    assert all(torch.equal(net.state_dict()[name], value) for name, value in weights.items())


def test_a_network_that_fails_may_run_again_inside() -> None:
    net, x = mlp(), normal(5, 5)
    with kw.collapse(net, {"0": [0, 1]}):
        expected = net(x)
        with pytest.raises(RuntimeError):
            net(x[:, :3])
        assert torch.equal(net(x), expected)
        assert torch.equal(net[2](torch.tanh(net[0](x))), expected)  # its modules called by themselves
    assert hooks(net) == 0


EYE = torch.eye(7)


@pytest.mark.parametrize(
    ("measured", "options", "error", "message"),
    [
        ({"0": 0}, {}, ValueError, r"must lie in 1 … 7, but is 0"),
        ({"0": 8}, {}, ValueError, r"must lie in 1 … 7, but is 8"),
        ({"0": 3}, {"study": None}, ValueError, r"Give `study=kw\.study"),
        ({"0": [0]}, {"center": True, "study": None}, ValueError, r"Give `study=kw\.study"),
        ({"0": [0]}, {"center": True}, ValueError, "normalize='ensemble'"),
        ({"0": [0]}, {"around": "median"}, ValueError, "'median'"),
        ({"0": 2 * EYE}, {}, ValueError, r"torch\.linalg\.qr"),
        ({"0": EYE[:, :0]}, {}, ValueError, r"shape \(d, k\)"),
        ({"0": EYE.mean(0)}, {}, ValueError, r"shape \(d, k\)"),
        ({"0": torch.full((7, 1), math.nan)}, {}, ValueError, "orthonormal"),
        ({"0": torch.eye(5)}, {}, ValueError, "7 features, but is measured in 5 dimensions"),
        ({"0": torch.eye(7, dtype=torch.complex64)}, {}, ValueError, "real"),
        ({"0": [7]}, {}, ValueError, "indices 0 … 6"),
        ({"0": [-1]}, {}, ValueError, "indices 0 … 6"),
        ({"0": [1, 1]}, {}, ValueError, "each once"),
        ({"0": []}, {}, ValueError, "some must be named"),
        ({"0": kw.Positions([0])}, {}, ValueError, "no positions"),
        ({"0": "leading"}, {}, TypeError, "'leading'"),
        ({"0": True}, {}, TypeError, "True"),
        ({"9": 1}, {}, kw.SelectorError, "'9'"),
        ({}, {}, TypeError, "measured"),
        ({"0": [0]}, {"mode": "look"}, ValueError, "'look'"),
        ({"0": kw.Measurement.projective(EYE)}, {}, ValueError, "outcome"),
        ({"0": (kw.Measurement.projective(EYE), 9)}, {}, ValueError, "0 … 6, but is 9"),
        ({"0": (kw.Measurement.projective(EYE), 1)}, {"mode": "sample"}, ValueError, "takes no outcome"),
        (
            {"0": kw.Measurement.from_effects(EYE.expand(2, 7, 7) / 2)},
            {"mode": "dephase"},
            ValueError,
            "projective",
        ),
    ],
)
def test_bad_input(measured: dict, options: dict, error: type[Exception], message: str) -> None:
    net, x = mlp(), normal(50, 5)
    options = {"study": kw.study(net, x)} | options
    with pytest.raises(error, match=message), kw.collapse(net, measured, **options):
        net(x)
    assert hooks(net) == 0


def test_layers_that_were_not_studied_or_never_ran() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    net, x = Idle(), normal(20, 4)
    with pytest.raises(ValueError, match="'idle' never ran"), kw.collapse(net, {"idle": [0]}):
        net(x)
    with kw.collapse(net, {"idle": [0]}):
        pass  # nothing ran, so nothing was missed
    with kw.collapse(net, {nn.Linear: [0]}):
        net(x)
    with (
        pytest.raises(ValueError, match=r"layers=\['used'\]"),
        kw.collapse(net, {"used": 2}, study=kw.study(net, x, layers="(model)*", labels=False)),
    ):
        pass


def test_the_study_of_another_network() -> None:
    wide = nn.Sequential(nn.Linear(5, 9), nn.Tanh(), nn.Linear(9, 3))
    study = kw.study(wide, normal(50, 5))
    net = mlp()
    with (
        pytest.raises(ValueError, match="7 features on axis 1, but the study saw 9"),
        kw.collapse(net, {"0": 2}, study=study),
    ):
        net(normal(3, 5))


def test_values_that_are_no_numbers_are_not_drawn_from() -> None:
    net, x = wire(), normal(3, 4)
    x[1, 2] = math.nan
    with pytest.raises(ValueError, match="finite"), kw.collapse(net, {"0": torch.eye(4)}, "sample"):
        net(x)
    with kw.collapse(net, {"0": [0, 1]}):
        assert net(x)[1].isnan().any()  # what the network itself would have passed on


class Twice(nn.Module):
    """A block that runs twice, as it is or under `torch.utils.checkpoint`, which runs it again in the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.reentrant: bool | None = None
        self.block, self.out = nn.Sequential(nn.Linear(8, 8), nn.Tanh()), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2):
            kept = self.reentrant is None
            x = self.block(x) if kept else checkpoint(self.block, x, use_reentrant=self.reentrant)
        return self.out(x)


@pytest.mark.parametrize("mode", ["project", "remove", "sample", "dephase"])
def test_what_the_backward_pass_runs_again_collapses_as_it_did(mode: str) -> None:
    torch.manual_seed(0)
    net, x = Twice().eval(), normal(64, 8)
    study = kw.study(net, x, layers=["block.0"])
    gradients = []
    for net.reentrant in (None, False, True):
        one, other = x.clone().requires_grad_(), (x + 1).requires_grad_()
        with kw.collapse(net, {"block.0": 3}, mode, study=study, seed=3):
            first, second = net(one), net(other)  # two passes, then their gradients
            first.square().sum().backward()
            second.square().sum().backward()
        gradients.append((one.grad, other.grad))
    for again in gradients[1:]:
        assert torch.allclose(again[0], gradients[0][0], rtol=1e-6, atol=0)
        assert torch.allclose(again[1], gradients[0][1], rtol=1e-6, atol=0)


def test_sparse_outputs_are_collapsed_as_dense_ones_are() -> None:
    x, basis = normal(6, 5), orthonormal(5, 2)
    net = nn.Sequential(Outputs(lambda x: x.to_sparse()))
    with kw.collapse(net, {"0": basis}):
        after = net(x)
    assert after.layout == torch.sparse_coo
    assert torch.allclose(after.to_dense(), restored(x @ basis @ basis.T, x), atol=1e-6)
