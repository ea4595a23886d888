"""What is held back, what is remembered, and how passes are counted."""

import pytest
import torch
from torch import nn

import ketwork as kw
from ketwork.networks.compression.calibration import Calibration, calibrate
from ketwork.networks.measures import Predictions


def gathered(data, **options) -> Calibration:
    options = {"samples": None, "batch_size": 8} | options
    return calibrate(nn.Linear(1, 2), data, **options)


def numbers(batches) -> list[int]:
    return [
        int(v)
        for batch in batches
        for v in (batch.content if torch.is_tensor(batch.content) else batch.content[0])
    ]


@pytest.mark.parametrize("batch_size", [1, 3, 8, 100])
def test_every_fifth_sample_is_held_back_however_it_is_batched(batch_size: int) -> None:
    found = gathered(torch.arange(23.0)[:, None], batch_size=batch_size)
    assert numbers(found.held_back) == [4, 9, 14, 19]
    assert numbers(found.fit) == [i for i in range(23) if i % 5 != 4]
    assert found.samples == 23


def test_labels_and_masks_go_with_their_samples() -> None:
    x = torch.arange(20.0)[:, None]
    found = gathered((x, torch.arange(20)))
    assert [int(v) for batch in found.held_back for v in batch.labels] == numbers(found.held_back)


def test_samples_stops_a_stream_that_has_no_end() -> None:
    def endless():
        while True:
            yield torch.randn(7, 1)

    found = gathered(endless(), samples=40)
    assert (found.samples, sum(b.size for b in found.held_back)) == (40, 8)


def test_passes_count_samples_and_backward_passes() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))
    ran = 0

    def counted(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        nonlocal ran
        ran += len(x)
        return model(x)

    result = kw.compress(net, torch.randn(500, 16), keep=0.7, forward=counted, batch_size=50)
    backward = 3 * 400
    assert result.passes <= (ran + backward) / 500
    # What is not counted is the measuring of costs at the end, of one batch of 40 a time.
    timed = ran + backward - result.passes * 500
    assert timed % 40 == 0
    assert timed <= 25 * 40
    assert result.passes <= 8


def test_accuracy_against_labels_that_exist() -> None:
    net = nn.Linear(1, 2)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[-1.0], [1.0]]))
        net.bias.zero_()
    x = torch.cat([-torch.ones(50, 1), torch.ones(50, 1)])
    labels = (x[:, 0] > 0).long()
    labels[4], labels[9] = 1, -100  # one wrong, one that does not exist, among the 20 held back
    found = calibrate(net, (x, labels), samples=None, batch_size=16)
    assert found.accuracy(net) == pytest.approx(18 / 19)


def test_predictions_that_take_too_much_memory_are_kept_on_disk() -> None:
    found = gathered(torch.arange(100.0)[:, None], batch_size=10, loss="kl")
    net, other = nn.Linear(1, 2), nn.Linear(1, 2)
    found.remember(net, memory=2**20)
    in_memory = found.kl(other)
    found.remember(net, memory=2 * 4 * 8)  # 8 of 20 samples' two floats
    assert found.kl(net) == 0
    assert found.kl(other) == in_memory > 0


def test_of_many_predictions_some_of_each_batch_say_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    net, seen = nn.Linear(1, 2), []
    whole = Predictions.recognized
    monkeypatch.setattr(
        Predictions,
        "recognized",
        lambda own, rows, labels: seen.append(len(rows[0])) or whole(own, rows, labels),
    )
    x = torch.arange(100.0)[:, None]
    found = gathered(x, batch_size=10)
    labelled = gathered((x, torch.ones(100, dtype=torch.long)), batch_size=10)
    for most in (2**24, 20):  # numbers, of 20 rows of two
        monkeypatch.setattr("ketwork.networks.compression.calibration._SEEN", most)
        for data in (found, labelled):
            seen.clear()
            data.remember(net, memory=2**20, recognize=True)
            assert seen == [10 if most == 20 and data is found else 20]
    assert labelled.predictions.heads[0].loss == "kl"  # labels are compared one by one


def test_harm_of_a_network_that_breaks_down_is_infinite() -> None:
    found = gathered(torch.randn(20, 1))
    net = nn.Linear(1, 2)
    found.remember(net, 2**20)
    broken = nn.Linear(1, 2)
    nn.init.constant_(broken.weight, float("nan"))
    assert found.kl(broken) == float("inf")


def test_harm_on_some_samples_is_of_batches_spread_over_the_data() -> None:
    net, moved = nn.Linear(1, 1), nn.Linear(1, 1)
    with torch.no_grad():
        net.weight.fill_(1)
        net.bias.zero_()
        moved.weight.fill_(2)
        moved.bias.zero_()
    x = torch.arange(100.0)[:, None]  # ten batches, of each of which two samples are held back
    found = calibrate(net, x, samples=None, batch_size=10, loss="squared")
    found.remember(net, 2**20)

    def mean(*samples: int) -> float:
        return sum(x**2 / 2 for x in samples) / len(samples)

    assert found.kl(moved, 4) == pytest.approx(mean(24, 29, 74, 79))
    assert found.kl(moved, 1) == pytest.approx(mean(54, 59))
    assert found.kl(moved, 1000) == pytest.approx(found.kl(moved))
