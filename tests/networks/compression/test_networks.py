"""`compress` on trained networks and on the architectures that people have."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import ketwork as kw
from ketwork.demo import digits
from ketwork.networks.compression import survey as fisher

PLAIN = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Sequential, nn.Identity)


def new_kinds(original: nn.Module, small: nn.Module) -> set[type]:
    """The types of the modules that `small` has and the original has not."""
    old = dict(original.named_modules())
    return {type(module) for path, module in small.named_modules() if type(module) is not type(old.get(path))}


def kl(net: nn.Module, other: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        return F.kl_div(
            F.log_softmax(other(x), -1), F.log_softmax(net(x), -1), reduction="batchmean", log_target=True
        ).item()


def test_a_trained_mnist_network_at_a_quarter(digit_network: nn.Module, mnist: tuple[Tensor, Tensor]) -> None:
    images, labels = mnist
    fit, held = images[::16], images[1::8]
    right = labels[1::8]
    accuracy = (digit_network(held).argmax(1) == right).float().mean().item()
    result = kw.compress(digit_network, fit, keep=0.25)
    assert result.after.parameters <= 0.25 * result.before.parameters
    assert set(new_kinds(digit_network, result.model)) <= set(PLAIN)
    assert (result.model(held).argmax(1) == right).float().mean().item() >= 0.995 * accuracy
    assert result.passes <= 8
    best = min(result.candidates, key=lambda tried: tried.kl)
    assert (result.chosen, result.kl) == (best.name, best.kl)


def test_what_the_record_says_is_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        fisher, "TEMPERATURES", (1.0,)
    )  # else harms are not those of the predictions themselves
    net, (x, _) = digits.model(), digits.training()
    result = kw.compress(net, x, keep=0.3)
    held_back = x[torch.arange(len(x)) % 5 == 4]
    assert result.kl == pytest.approx(kl(net, result.model, held_back), rel=1e-3, abs=1e-9)
    assert result.settings["held_back"] == len(held_back)
    fresh = kl(net, result.model, digits.held_out()[0])
    assert fresh < 30 * result.kl + 1e-3
    estimate = sum(row.change.kl_increase for row in result.layers)  # each layer fitted by itself
    by_itself = result.chosen.removeprefix("sequential, ")
    measured = next(tried.kl for tried in result.candidates if tried.name == by_itself)
    assert 0.2 < measured / estimate < 5, (measured, estimate, result.chosen)
    table = result.table()
    assert table["kl_share"].sum() == pytest.approx(1)
    assert table["kl_increase"].sum() == pytest.approx(result.kl)
    assert list(table["layer"]) == ["conv1", "conv2", "hidden", "readout"]


def test_bounds_hold_on_data_held_back_and_smaller_bounds_give_larger_networks() -> None:
    net, (x, y) = digits.model(), tuple(part[:300] for part in digits.training())
    sizes = []
    for bound in (1e-5, 1e-2):
        result = kw.compress(net, x, max_kl=bound)
        assert result.kl <= bound
        sizes.append(result.after.parameters)
    assert sizes[0] > sizes[1]
    held = torch.arange(len(x)) % 5 == 4

    def accuracy(model: nn.Module) -> float:
        return (model(x[held]).argmax(1) == y[held]).float().mean().item()

    result = kw.compress(net, (x, y), max_drop=0.0)
    assert accuracy(result.model) >= accuracy(net)
    assert result.after.parameters < 0.6 * result.before.parameters


def test_a_drop_bounds_the_candidate_that_is_returned_and_not_another() -> None:
    """The candidate of least KL may lose more accuracy than the bound allows; it must not be taken then."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(20, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 10))
    x = torch.randn(400, 20)
    labels = net(x).argmax(1)
    held = torch.arange(400) % 5 == 4
    for drop in (0.0, 0.1):
        result = kw.compress(net, (x, labels), max_drop=drop, multiple_of=1)
        right = (result.model(x[held]).argmax(1) == labels[held]).double().mean().item()
        assert right >= 1 - drop - 1e-9


def test_sentence_embeddings_keep_their_direction(minilm: Path, sms: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(minilm)
    model = AutoModel.from_pretrained(minilm).eval()
    texts = [str(text) for text in pd.read_csv(sms)["text"][:200]]

    def tokens(some: list[str]) -> dict[str, Tensor]:
        return dict(tokenizer(some, padding=True, truncation=True, max_length=16, return_tensors="pt"))

    def embeddings(net: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        mask = batch["attention_mask"][..., None]
        return (net(**batch).last_hidden_state * mask).sum(1) / mask.sum(1)

    batches = [tokens(texts[i : i + 40]) for i in range(0, 160, 40)]
    model.encoder.layer = model.encoder.layer[:2]  # its first two blocks
    result = kw.compress(model, batches, keep=0.97, output="last_hidden_state", layers="encoder.*attention*")
    assert result.settings["loss"] == "regression"
    assert result.after.parameters <= 0.97 * result.before.parameters
    with torch.no_grad():
        held = tokens(texts[160:])
        cosine = F.cosine_similarity(embeddings(model, held), embeddings(result.model, held))
    assert cosine.mean() >= 0.99
    reasons = result.table().set_index("layer")["reason"]
    assert reasons["embeddings.word_embeddings"] == "not among `layers`"
    assert reasons["encoder.layer.1.output.dense"] == "not among `layers`"


def test_gpt2_with_its_transposed_layers_fused_attention_and_tied_embeddings() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=97, n_positions=32, n_embd=48, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0
    )
    net = GPT2LMHeadModel(config)
    ids = torch.randint(0, 97, (60, 16))
    result = kw.compress(net, {"input_ids": ids}, keep=0.8)
    small = result.model
    table = result.table().set_index("layer")
    cut = table.index[table[["rank", "units"]].notna().any(axis=1)]
    assert {"c_attn", "c_fc"} <= {path.rpartition(".")[2] for path in cut}
    assert table.loc[["lm_head", "transformer.wte"], "reason"].tolist() == ["left dense"] * 2
    assert small.lm_head.weight is small.transformer.wte.weight
    assert (
        result.after.parameters
        == sum(p.numel() for p in small.parameters())
        <= 0.8 * result.before.parameters
    )
    net.eval()
    with torch.no_grad():
        harm = F.kl_div(
            F.log_softmax(small.eval()(ids).logits, -1), F.log_softmax(net(ids).logits, -1),
            log_target=True, reduction="sum",
        )  # fmt: skip
    assert harm / ids.numel() < 3 * result.kl
    assert result.kl < 1e-3
    assert small.generate(ids[:1, :4], max_new_tokens=3, do_sample=False).shape == (1, 7)


@pytest.mark.filterwarnings("ignore:.*nested tensors is in prototype")  # what the original itself says
@pytest.mark.parametrize("padded", [False, True])
def test_torchs_own_transformer_encoder(padded: bool) -> None:
    """Its fused path reads the weights of its layers: it must run, and say the same, where it would be taken."""
    torch.manual_seed(0)
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2)

    class Texts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.head = encoder, nn.Linear(32, 11)

        def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
            return self.head(self.encoder(x, src_key_padding_mask=padding)[:, 0])

    net, x = Texts().eval(), torch.randn(100, 7, 32)
    data = {"x": x} | ({"padding": torch.arange(7) >= torch.randint(3, 8, (100, 1))} if padded else {})
    result = kw.compress(net, data, keep=0.85)
    table = result.table().set_index("layer")
    for part in ("", ".out_proj"):  # its matrices are layers like others
        reason = table.loc[f"encoder.layers.0.self_attn{part}", "reason"]
        assert "raw parameters" not in reason
        assert reason != "it was never called"
    assert table[["rank", "units"]].notna().any(axis=None)
    with torch.no_grad():
        fused = result.model(**data)
    with torch.enable_grad():
        torch.testing.assert_close(result.model(**data).detach(), fused)
    with torch.no_grad():
        before, after = (F.log_softmax(y, -1) for y in (net(**data), fused))
    assert F.kl_div(after, before, log_target=True, reduction="batchmean") < 1e-2


class Block(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(c, c, 3, padding=1, bias=False), nn.BatchNorm2d(c)
        self.depthwise = nn.Conv2d(c, c, 3, padding=1, groups=c)
        self.grouped, self.last = nn.Conv2d(c, c, 1, groups=2), nn.BatchNorm2d(c)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm(self.conv(x)))
        return torch.relu(x + self.last(self.grouped(self.depthwise(y))))


def residual() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), Block(16), Block(16), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)
    )  # fmt: skip
    for _ in range(4):
        net(torch.randn(40, 3, 12, 12))
    return net.eval()


def test_a_residual_network_with_batchnorm_and_grouped_convolutions() -> None:
    net, x = residual(), torch.randn(100, 3, 12, 12)
    result = kw.compress(net, x, keep=0.7)
    table = result.table().set_index("layer")
    assert table.loc["1.depthwise", "reason"] == "depthwise"
    assert table.loc["1.grouped", "reason"] == "2 groups"
    assert table.loc["1.norm", "reason"] == "folded into 1.conv"
    assert table.loc["2.last", "reason"] == "folded into 2.grouped"
    assert (table.loc["1.norm", "parameters"], isinstance(result.model[1].norm, nn.Identity)) == (0, True)
    assert table.loc[["1.conv", "2.conv"], "rank"].notna().all()
    assert kl(net, result.model, x) < 1e-4
    assert set(new_kinds(net, result.model)) <= set(PLAIN)


def test_a_dead_layer_and_one_of_constant_inputs_cost_nothing() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 5))
    with torch.no_grad():
        net[0].bias[:40] = -1e3  # dead
    x = torch.randn(200, 32)
    x[:, :20] = 3.0  # constant pixels
    result = kw.compress(net, x, keep=0.7)
    assert result.kl < 1e-9
    assert all(bool(torch.isfinite(p).all()) for p in result.model.parameters())


def test_a_bound_of_memory_bounds_the_samples_in_step_and_predictions_kept() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
    seen: list[int] = []

    def counted(model: nn.Module, x: Tensor) -> Tensor:
        seen.append(len(x))
        return model(x)

    x, passes = torch.randn(500, 16), {}
    for memory in (2**32, 60_000, 1):
        result = kw.compress(net, x, keep=0.7, forward=counted, batch_size=50, memory=memory)
        passes[memory] = result.passes, result.settings["held_back"]
        assert result.kl < 0.01
    assert passes[2**32][0] > passes[60_000][0] > passes[1][0]
    assert {held for _, held in passes.values()} == {100}  # predictions beyond the memory are kept on disk


def test_the_same_generator_gives_the_same_network_and_the_global_one_is_not_touched() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))
    x, state = torch.randn(100, 16), torch.get_rng_state()

    def weights(generator: torch.Generator | int) -> Tensor:
        small = kw.compress(net, x, keep=0.8, seed=generator).model
        return torch.cat([p.detach().flatten() for p in small.parameters()])

    seeded = weights(torch.Generator().manual_seed(0))
    torch.testing.assert_close(weights(0), seeded, atol=0, rtol=0)
    other = weights(torch.Generator().manual_seed(1))
    assert len(other) == len(seeded)
    assert not torch.equal(other, seeded)
    torch.testing.assert_close(torch.get_rng_state(), state, atol=0, rtol=0)


def test_inside_inference_mode() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))
    x = torch.randn(100, 16)
    with torch.inference_mode():
        inside = kw.compress(net, x, keep=0.8)
    assert inside.kl == pytest.approx(kw.compress(net, x, keep=0.8).kl)
    inside.model(x).sum().backward()  # its parameters are ordinary ones
