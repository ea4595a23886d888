"""Old names warn and work; progress knows its end; bounds are met to 2 %; held-back data are apart; precisions."""

import re
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import ketwork as kw
from ketwork.demo import digits
from ketwork.networks.activations import Batch
from ketwork.networks.compression.calibration import picked

X = torch.randn(200, 30, generator=torch.Generator().manual_seed(0))


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 5)).eval()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ({"budget": "multiply-adds"}, {"cost": "macs"}, "`budget` of `compress` is now called `cost`"),
        (
            {"cost": "multiply-adds"},
            {"cost": "macs"},
            "`cost='multiply-adds'` of `compress` is now called 'macs'",
        ),
        ({"samples": 100}, {"max_samples": 100}, "`max_samples`"),
        ({"multiple": 4}, {"multiple_of": 4}, "`multiple_of`"),
        ({"generator": torch.Generator().manual_seed(3)}, {"seed": 3}, "`seed`"),
    ],
)
def test_old_names_of_arguments_warn_and_work(old: dict, new: dict, message: str) -> None:
    with warnings.catch_warnings(record=True, action="always") as caught:
        a = kw.compress(mlp(), X, keep=0.7, **old)
    assert any(message in str(one.message) and one.category is FutureWarning for one in caught)
    b = kw.compress(mlp(), X, keep=0.7, **new)
    assert torch.equal(a.model(X), b.model(X))


def test_progress_knows_how_much_is_left() -> None:
    seen: list[tuple[int, int]] = []
    result = kw.compress(mlp(), X, keep=0.7, progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert all(done <= total for done, total in seen)
    assert seen[0][1] == 8 * 200
    assert seen[-1][0] >= result.passes * 200
    old: list[int] = []
    kw.compress(mlp(), X, keep=0.7, progress=old.append)
    assert old == [done for done, _ in seen]


def test_progress_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    kw.compress(mlp(), X, keep=0.7, progress=True)
    # What it shows on the way depends on the machine's speed; at the end all is done.
    assert re.search(r"compress: 100%\|.*\| (\d+)/\1 \[", capsys.readouterr().err)


@pytest.mark.parametrize("bound", [0.003, 0.03])
def test_the_smallest_network_within_a_bound_is_found_to_two_percent(bound: float) -> None:
    net, x = digits.model(), digits.training()[0][:600]
    result = kw.compress(net, x, max_kl=bound)
    assert result.kl + 2 * result.kl_stderr <= bound
    share = result.after.parameters / result.before.parameters
    smaller = kw.compress(net, x, keep=0.96 * share)
    assert smaller.kl + 2 * smaller.kl_stderr > bound


def test_samples_of_packed_sequences_are_held_back_apart() -> None:
    x, lengths = torch.randn(6, 7, 3), torch.tensor([2, 7, 3, 5, 1, 4])
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    part = picked(Batch(packed, torch.arange(6), (), 6), torch.tensor([1, 4])).content
    assert isinstance(part, PackedSequence)
    assert sorted(part.data.sum(1).tolist()) == sorted([*x[1].sum(1).tolist(), float(x[4, 0].sum())])


@pytest.mark.parametrize("given", [torch.float32, torch.float64])
def test_a_network_of_half_precision_takes_other_data_and_keeps_its_own(given: torch.dtype) -> None:
    net = mlp().half()
    result = kw.compress(net, X.to(given), keep=0.6)
    assert {p.dtype for p in result.model.parameters()} == {torch.float16}
    held = X[4::5].half()
    with torch.no_grad():
        p, q = (model(held).double().log_softmax(-1) for model in (net, result.model))
    assert result.kl == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), rel=1e-6)


def test_a_network_that_is_certain_of_its_data_is_a_warning() -> None:
    net = mlp()
    with torch.no_grad():
        net[4].weight.mul_(1e6)
    (warning,) = kw.compress(net, X, keep=0.7, loss="kl").warnings
    assert "nearly certain of the data held back" in warning


@pytest.mark.parametrize("memory", ["1GB", 1])  # the original's predictions in memory; in files
def test_a_network_that_predicts_the_same_for_all_its_data_is_a_warning(memory: str | int) -> None:
    same = "predicts the same for all data held back"
    one, two = X[:1].expand(100, 30), X[1:2].expand(100, 30)
    assert any(same in words for words in kw.compress(mlp(), one, keep=0.7, memory=memory).warnings)
    each_batch_by_itself = kw.compress(mlp(), torch.cat([one, two]), keep=0.7, batch_size=50, memory=memory)
    assert not any(same in words for words in each_batch_by_itself.warnings)


def test_outputs_of_all_heads_count() -> None:
    class Heads(nn.Module):
        """Each head reads another half of the features, and both matter."""

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.body, self.a, self.b = nn.Linear(30, 64), nn.Linear(64, 16), nn.Linear(64, 16)
            with torch.no_grad():
                self.a.weight[:, 32:] = 0
                self.b.weight[:, :32] = 0

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            h = self.body(x).relu()
            return self.a(h), self.b(h).softmax(-1)

    net = Heads().eval()
    both = kw.compress(net, X, keep=0.75)
    assert [head["loss"] for head in both.settings["heads"]] == ["kl", "probabilities"]
    one = kw.compress(net, X, keep=0.75, output="[0]")
    held = X[4::5]
    with torch.no_grad():
        (a, b), (c, d) = net(held), both.model(held)
        kl = (a.softmax(-1) * (a.log_softmax(-1) - c.log_softmax(-1))).sum(-1) + (b * (b / d).log()).sum(-1)
        assert both.kl == pytest.approx(float(kl.mean()), rel=1e-3)
        lost = [float((b * (b / model(held)[1]).log()).sum(-1).mean()) for model in (both.model, one.model)]
    assert lost[1] > 2 * lost[0]  # what only the other head needs was cut


def test_quantized_layers_take_less_and_say_so() -> None:
    net, (images, _) = digits.model(), digits.held_out()
    result = kw.compress(net, digits.training()[0][:600], keep=0.15, cost="bytes")
    assert result.after.bytes <= 0.15 * result.before.bytes
    table = result.table()
    assert (table["bits"] == 8).any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agree = (result.model(images).argmax(1) == net(images).argmax(1)).double().mean()
    assert agree > 0.97
    for module in result.model.modules():
        if getattr(module, "_eight_bits", False):
            weight = module.weight.detach()
            steps = weight.flatten(1) / (weight.flatten(1).abs().amax(1, keepdim=True) / 127)
            assert float((steps - steps.round()).abs().max()) < 1e-3


def test_an_exported_module_is_refused_by_name() -> None:
    program = torch.export.export(mlp(), (X[:4],), dynamic_shapes=({0: torch.export.Dim("batch")},))
    with pytest.raises(TypeError, match=r"the module of an exported program \(torch\.export\)"):
        kw.compress(program.module(), X, keep=0.9)
