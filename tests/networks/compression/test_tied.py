"""An embedding and the head that has its weight: one low rank for both, one tensor in both, in files too."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel, T5Config, T5ForConditionalGeneration

import ketwork as kw
from ketwork.networks.compression import budgets
from ketwork.networks.compression.calibration import Calibration, calibrate
from ketwork.networks.compression.costs import bytes_of, multiply_adds, parameters
from ketwork.networks.compression.covariance import Scatter
from ketwork.networks.compression.factors import Metric
from ketwork.networks.compression.fits import Fits, Variant, one_shot, sequential
from ketwork.networks.compression.forms import DENSE, Form
from ketwork.networks.compression.layers import TIED, weight_layers
from ketwork.networks.compression.loader import KEY, digest
from ketwork.networks.compression.surgery import plain
from ketwork.networks.compression.survey import Survey, run_survey
from ketwork.networks.compression.tied import Tied, TiedReductions, as_one_module, tied_layers

BOTH = ["words", "head"]


class Language(nn.Module):
    """Predicts the next word from the mean of those before it."""

    def __init__(self, words: int = 60, width: int = 24, bias: bool = False, rank: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.mix = nn.Embedding(words, width), nn.Linear(width, width)
        self.head = nn.Linear(width, words, bias=bias)
        if rank is not None:
            self.words.weight.data = torch.randn(words, rank) @ torch.randn(rank, width) / rank**0.5
        self.head.weight = self.words.weight
        self.eval()

    def forward(self, ids: Tensor) -> Tensor:
        h = self.words(ids).cumsum(1) / torch.arange(1, ids.shape[1] + 1)[:, None] ** 0.5
        h = (h + torch.tanh(self.mix(h))) / 4
        return self.head(h)


def sentences(count: int = 100, words: int = 60, length: int = 6, seed: int = 1) -> Tensor:
    return torch.randint(0, words, (count, length), generator=torch.Generator().manual_seed(seed))


def kl(a: nn.Module, b: nn.Module, ids: Tensor) -> float:
    with torch.no_grad():
        p, q = (F.log_softmax(net(ids).double(), -1) for net in (a, b))
    return float((p.exp() * (p - q)).sum() / ids.numel())


def surveyed(net: nn.Module, ids: Tensor) -> tuple[nn.Module, Tied, Survey, Calibration]:
    base = plain(net)
    gathered = calibrate(base, ids, samples=None, batch_size=50, loss="kl")
    gathered.remember(base, 2**30)
    (pair,) = tied_layers(base, weight_layers(base)[1])
    survey = run_survey(base, pair.parts, gathered, torch.Generator().manual_seed(0), {pair.head.path})
    return base, pair, survey, gathered


def share(net: Language, rank: int) -> float:
    """What is kept at that rank, and half of a rank more."""
    (words, width), rest = net.words.weight.shape, parameters(net) - net.words.weight.numel()
    return (rest + (rank + 0.5) * (words + 2 * width) + width) / parameters(net)


@pytest.mark.parametrize("bias", [False, True])
def test_a_weight_of_low_rank_loses_nothing(bias: bool) -> None:
    net = Language(bias=bias, rank=8)
    result = kw.compress(net, sentences(), keep=share(net, 8), layers=BOTH)
    new = sentences(seed=2)
    with torch.no_grad():
        torch.testing.assert_close(result.model(new), net(new), atol=1e-4, rtol=1e-4)
    assert result.kl < 1e-8
    rows = result.table().set_index("layer")
    assert rows.loc[BOTH, "rank"].tolist() == [8, 8]
    assert rows.loc["head", "reason"] == "with words: one weight for both"
    assert rows.loc[BOTH, "parameters"].tolist() == [8 * (60 + 24) + 24, 8 * (60 + 24) + 60 * bias]


def test_one_tensor_is_in_both_and_counts_once() -> None:
    net = Language()
    result = kw.compress(net, sentences(), keep=share(net, 8), layers=BOTH)
    words, head = result.model.words, result.model.head
    assert [type(part) for part in (*words, *head)] == [nn.Embedding, nn.Linear, nn.Linear, nn.Linear]
    assert head[1].weight is words[0].weight
    assert (head[0].bias, head[1].bias) == (None, None)
    assert result.after.parameters == 8 * (60 + 24 + 24) + 24 + parameters(net.mix)
    assert result.after.parameters == parameters(result.model) <= share(net, 8) * result.before.parameters
    assert net.head.weight is net.words.weight
    assert result.kl > 1e-4


def test_the_tie_survives_files_copies_and_state_dicts(tmp_path: Path) -> None:
    net = Language(bias=True)
    result = kw.compress(net, sentences(), keep=share(net, 8), layers=BOTH)
    result.save(tmp_path / "small")
    fresh = Language(bias=True)
    nn.init.zeros_(fresh.words.weight)
    loaded = kw.load_compressed(str(tmp_path / "small"), fresh)
    copied, filled = copy.deepcopy(result.model), copy.deepcopy(result.model)
    for parameter in filled.parameters():
        nn.init.zeros_(parameter)
    state = result.model.state_dict()
    assert state["head.1.weight"].data_ptr() == state["words.0.weight"].data_ptr()
    filled.load_state_dict(state)
    for small in (loaded, copied, filled, kw.Compressed.load(tmp_path / "small", Language(bias=True)).model):
        assert small.head[1].weight is small.words[0].weight
        assert parameters(small) == result.after.parameters
        with torch.no_grad():
            torch.testing.assert_close(
                small(sentences(seed=2)), result.model(sentences(seed=2)), atol=0, rtol=0
            )


def test_a_file_that_ties_what_has_another_shape_is_refused(tmp_path: Path) -> None:
    net = Language()
    kw.compress(net, sentences(), keep=share(net, 8), layers=BOTH).save(tmp_path / "small")
    with safe_open(tmp_path / "small", "pt") as file:
        about = json.loads(file.metadata()[KEY])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert about["tied"] == {"head.1.weight": "words.0.weight"}
    about["tied"] = {"head.1.weight": "words.1.weight"}
    del about["digest"]
    about["digest"] = digest(tensors, about)
    save_file(tensors, tmp_path / "other", metadata={KEY: json.dumps(about)})
    with pytest.raises(ValueError, match="different shapes"):
        kw.load_compressed(str(tmp_path / "other"), Language())


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # torch's exporter's own
@pytest.mark.parametrize("cost", ["parameters", "bytes"])
def test_exports_take_any_batch(cost: str, tmp_path: Path) -> None:
    import onnxruntime

    net = Language(words=200)
    result = kw.compress(
        net, sentences(words=200), keep=0.6 if cost == "parameters" else 0.26, cost=cost, layers=BOTH
    )
    assert result.table().set_index("layer").loc[BOTH, "rank"].notna().all()
    batch = torch.export.Dim("batch")
    exported = torch.export.export(result.model, (sentences(4, 200),), dynamic_shapes=({0: batch},)).module()
    path = tmp_path / "small.onnx"
    result.export_onnx(path, sentences(4, 200), calibration=[sentences(20, 200)])
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for count in (1, 7):
        ids = sentences(count, 200, seed=3)
        (out,) = session.run(None, {session.get_inputs()[0].name: ids.numpy()})
        with torch.no_grad():
            same = result.model(ids)
            torch.testing.assert_close(exported(ids), same, atol=1e-5, rtol=1e-5)
        assert (torch.from_numpy(out) - same).norm() < (1e-5 if cost == "parameters" else 0.05) * same.norm()


@given(
    words=st.integers(12, 60),
    width=st.integers(4, 30),
    bias=st.booleans(),
    rank=st.integers(1, 8),
    seed=st.integers(0, 99),
)
@example(words=12, width=30, bias=False, rank=3, seed=0)  # more features than words
def test_the_records_kl_is_that_of_the_two_networks(
    words: int, width: int, bias: bool, rank: int, seed: int
) -> None:
    net = Language(words, width, bias)
    ids = sentences(40, words, 5, seed)
    keep = share(net, rank)
    if keep > 1 or rank > min(words, width):
        return
    result = kw.compress(net, ids, keep=keep, layers=BOTH, multiple_of=1, loss="kl")
    assert result.kl == pytest.approx(kl(net, result.model, ids[4::5]), rel=1e-3, abs=1e-7)
    assert result.model.head[1].weight is result.model.words[0].weight
    assert result.after.parameters <= keep * result.before.parameters


def test_the_gradients_at_the_heads_input_have_the_moments_of_all_logits() -> None:
    """EᵀGE by gradients of d numbers is that by the V × V matrix G of the head as a layer of its own."""
    base, pair, survey, gathered = surveyed(Language(), sentences())
    other = copy.deepcopy(base)
    other.head.weight = nn.Parameter(other.words.weight.detach().clone(), requires_grad=False)
    layers = {layer.path: layer for layer in weight_layers(other)[0]}
    apart = run_survey(other, [layers["words"], layers["head"]], gathered, torch.Generator().manual_seed(0))
    e = pair.weight().T
    g = apart.fisher("head")
    assert g is not None
    assert g.shape == (60, 60)
    torch.testing.assert_close(survey.fisher("head"), e.T @ g @ e, atol=1e-7, rtol=1e-4)
    torch.testing.assert_close(survey.fisher("words"), apart.fisher("words"))
    shift = torch.ones(60, dtype=torch.float64)  # of all logits
    assert float(shift @ g @ shift) < 1e-6 * float(g.trace())


@pytest.mark.parametrize("bias", [False, True])
def test_the_error_is_the_sum_of_what_both_lose(bias: bool) -> None:
    """By the words one by one, with G between all of them."""
    net = Language(40, 12, bias)
    (pair,) = tied_layers(net, weight_layers(net)[1])
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    e, h, seen = pair.weight().T, normal(500, 12) @ normal(12, 12) + 1, normal(300).abs().mul(9).long()
    root, metric = normal(40, 40), Metric.of((own := normal(12, 12)) @ own.T)
    g = root @ root.T
    words, inputs = Scatter.of(e[seen]), Scatter.of(h)
    reductions = TiedReductions.of(pair, e.T, words, inputs, metric, e.T @ g @ e)
    c = inputs.covariance() + (0 if bias else torch.outer(inputs.left, inputs.left))
    c = c + 1e-3 * c.trace() / 12 * torch.eye(12)  # the metric's own ridge
    whole = Form("outputs", 12)
    assert reductions.error(whole) < 1e-6 * reductions.total
    for rank in (1, 5, 11):
        form = Form("outputs", rank)
        (a, second, first), shift = reductions.cut(form)
        change = a @ first - e
        head = float((change @ c * (g @ change)).sum())
        out = a[seen] @ second.T + shift[:12] - e[seen]
        assert out.mean(0).abs().max() < 1e-9
        embedding = float(metric.times(out.T).square().sum() / len(seen))
        assert reductions.error(form) == pytest.approx(head + embedding, rel=1e-5)
        if bias:  # it takes what is lost at the mean input
            assert (shift[12:] - pair.head.bias() + change @ inputs.left).abs().max() < 1e-9
        assert 0 < reductions.share(form) < 1


def test_half_of_the_error_estimates_the_kl_of_a_trained_network() -> None:
    net, ids = Language(60, 24), sentences(200)
    ids[:, 1::2] = (7 * ids[:, ::2]) % 60  # every second word follows from the one before it
    adam = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(300):
        loss = F.cross_entropy(net(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert loss < 2.4
    base, pair, survey, gathered = surveyed(net, ids)
    fits = Fits([pair], survey)
    for rank in (12, 18, 22):
        form = Form("outputs", rank)
        measured = gathered.kl(one_shot(base, fits, {pair.path: form}, True))
        assert 1 / 1.5 < measured / (fits.reductions(pair, True).error(form) / 2) < 1.5
    form = Form("outputs", 18)
    with_metric, without = (gathered.kl(one_shot(base, fits, {pair.path: form}, w)) for w in (True, False))
    assert with_metric < without


@pytest.mark.parametrize("bias", [False, True])
def test_what_it_is_priced_at_is_what_it_costs(bias: bool) -> None:
    base, pair, survey, gathered = surveyed(Language(200, 24, bias), sentences(words=200))
    fits = Fits([pair], survey)
    few = gathered.fit[0]
    measure = {
        "parameters": parameters,
        "macs": lambda net: multiply_adds(lambda: gathered.output(net, few), few.size),
        "bytes": bytes_of,
    }
    for kind, of in measure.items():
        made = budgets.budget(kind, of(base), base, [pair], survey, gathered, 8)
        eight = (0, 8) if kind == "bytes" else (0,)
        for form in [
            f.with_bits(bits) for f in (DENSE, Form("outputs", 8), Form("outputs", 16)) for bits in eight
        ]:
            net = one_shot(base, fits, {pair.path: form}, True)
            assert made.fixed + made.price(pair.path, form, pair.m, pair.k) == pytest.approx(of(net)), (
                kind,
                form,
            )
            assert net.head is base.head or (
                (net.words if form.dense else net.words[0]).weight
                is (net.head if form.dense else net.head[1]).weight
            )


def test_a_latency_is_timed_at_its_ranks() -> None:
    base, pair, survey, gathered = surveyed(Language(400, 32), sentences(words=400))
    made = budgets.budget("latency", 1.0, base, [pair], survey, gathered, 8)
    assert {form.rank for form in made.seconds["words"]} == {None, 8, 16, 24}
    assert made.seconds["words"][DENSE] > 0


def test_the_fit_in_sequence_leaves_both_factors_as_they_are() -> None:
    base, pair, survey, gathered = surveyed(Language(), sentences())
    assert gathered.held == [0, 0]  # bytes that networks in step must hold of the two, for each batch
    fits, form = Fits([pair], survey), Form("outputs", 8)
    for some in (form, DENSE):
        alone = one_shot(base, fits, {pair.path: some}, True)
        model, missed = sequential(base, fits, Variant({pair.path: some}, True), gathered, gathered.fit)
        assert missed == frozenset()
        torch.testing.assert_close(model.state_dict(), alone.state_dict())


def test_in_a_bound_of_the_kl_both_go_with_all_other_layers() -> None:
    net, ids = Language(80, 32, rank=16), sentences(150, 80)
    result = kw.compress(net, ids, max_kl=1e-3)
    rows = result.table().set_index("layer")
    assert rows.loc["words", "rank"] == rows.loc["head", "rank"] <= 16
    assert kl(net, result.model, ids[4::5]) <= 1e-3
    with pytest.raises(ValueError, match="must be at least"):
        kw.compress(net, ids, keep=share(net, 7), layers=BOTH)


class Others(Language):
    """One whose head cannot be replaced."""

    def __init__(self, how: str) -> None:
        super().__init__(bias=how == "bias")
        self.how = how
        if how == "hooks":
            self.head.register_forward_hook(lambda module, inputs, output: output)
        if how == "third":
            self.third = nn.Linear(24, 60)
            self.third.weight = self.words.weight
        if how == "bias":
            self.shift = nn.ParameterDict({"bias": self.head.bias})

    def forward(self, ids: Tensor) -> Tensor:
        out = super().forward(ids)
        if self.how == "twice":
            return out + self.head(self.words(ids))
        if self.how == "third":
            return out + self.third(self.words(ids))
        if self.how == "read":
            return out + self.words(ids) @ self.head.weight.T
        return out


@pytest.mark.parametrize(
    ("how", "words", "head"),
    [
        ("hooks", TIED, "it has hooks, which a new module would lose"),
        ("third", TIED, TIED),
        ("bias", "its weight is tied, and so is its bias", "its weight is tied, and so is its bias"),
        (
            "twice",
            "its weight is also head's: ",
            "its weight is tied to another module's, and it runs more than once",
        ),
        ("read", "its weight is also head's: ", "the network's code reads its weight itself"),
    ],
)
def test_others_stay_with_their_reasons(how: str, words: str, head: str) -> None:
    net = Others(how)
    result = kw.compress(net, sentences(), keep=0.95)
    reasons = result.table().set_index("layer")["reason"]
    assert reasons["words"].startswith(words)
    assert reasons["head"].startswith(head)
    assert isinstance(result.model.words, nn.Embedding)


def test_layers_name_both_or_none() -> None:
    net = Language(rank=8)
    result = kw.compress(net, sentences(), keep=0.95, layers=["words", "mix"])
    reasons = result.table().set_index("layer")["reason"]
    assert reasons["head"] == "not among `layers`"
    assert reasons["words"] == "its weight is also head's: not among `layers`"


def test_what_the_predictions_do_not_depend_on_stays() -> None:
    class Hidden(Language):
        def forward(self, ids: Tensor) -> Any:
            h = self.mix(self.words(ids))
            return {"hidden": h, "logits": self.head(h)}

    result = kw.compress(Hidden(), sentences(), keep=0.95, output="hidden", loss="squared")
    assert (
        result.table().set_index("layer").loc["head", "reason"]
        == "the predictions do not depend on its output"
    )


def test_embeddings_of_encoder_and_decoder_are_one_module(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=90, d_model=24, d_kv=8, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0,
        tie_word_embeddings=True,
    )  # fmt: skip
    net = T5ForConditionalGeneration(config).eval()
    names = ["shared", "encoder.embed_tokens", "decoder.embed_tokens", "lm_head"]
    data = {"input_ids": sentences(60, 90), "decoder_input_ids": sentences(60, 90, seed=2)}
    full = parameters(net)
    result = kw.compress(net, data, keep=1 - (90 * 24 - 9 * (90 + 48)) / full, layers=names)
    small = result.model
    assert small.encoder.embed_tokens is small.decoder.embed_tokens is small.shared
    assert small.lm_head[1].weight is small.shared[0].weight
    assert parameters(small) == full - 90 * 24 + 8 * (90 + 48) + 24
    rows = result.table().set_index("layer")
    assert rows.loc[names, "rank"].tolist() == [8] * 4
    assert rows.loc[names, "multiply_adds"].max() < result.after.multiply_adds
    result.save(tmp_path / "small")
    loaded = kw.load_compressed(str(tmp_path / "small"), T5ForConditionalGeneration(config).eval())
    some = {name: ids[:5] for name, ids in data.items()}
    with torch.no_grad():
        torch.testing.assert_close(loaded(**some).logits, small(**some).logits, atol=0, rtol=0)
    assert parameters(loaded) == parameters(small)


def test_only_embeddings_of_one_weight_become_one() -> None:
    a, b, c = nn.Embedding(9, 4), nn.Embedding(9, 4), nn.Embedding(9, 4)
    b.weight = a.weight
    net = nn.ModuleDict({"a": a, "b": b, "c": c})
    as_one_module(net, {"a", "c"})
    assert net["b"] is b
    as_one_module(net, {"a", "b"})
    assert net["b"] is net["a"] is not net["c"]


def test_gpt2_generates_and_no_configuration_can_tell_of_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=150, n_positions=16, n_embd=32, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
        )
    ).eval()
    ids, full = sentences(60, 150), parameters(net)
    result = kw.compress(
        net,
        {"input_ids": ids},
        keep=1 - (150 * 32 - 8.5 * (150 + 64)) / full,
        layers=["transformer.wte", "lm_head"],
    )
    small = result.model
    assert small.lm_head[1].weight is small.transformer.wte[0].weight
    assert small.generate(ids[:1, :4], max_new_tokens=3, do_sample=False).shape == (1, 7)
    result.save(tmp_path / "small")
    for one in (small, kw.load_compressed(str(tmp_path / "small"), copy.deepcopy(net))):
        with pytest.raises(ValueError, match="cannot tell of this network"):
            one.save_pretrained(tmp_path)
        with pytest.raises(AttributeError):
            one.tie_weights()  # of transformers: loud, not another network
        assert one.lm_head[1].weight is one.transformer.wte[0].weight
