"""The architectures of `docs/works-with.md`: how each is built, and what three of its layers must say.

Each is built from its configuration with random weights, so small that batch size, positions and features often agree.
What a layer must say is computed from plain forward hooks with NumPy, by axes that are written down here. The page is
written anew by `python tests/networks/works_with.py`, with `src` on the path; `test_works_with.py` says whether each
line of it is true.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import shutil
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import ketwork as kw
from ketwork.networks.activations import POOLED

PAGE = Path(__file__).parents[2] / "docs" / "works-with.md"

HEAD = """\
# How axes are found, and architectures that are tested

Which axis of a layer's output counts samples and which holds features is not read off sizes, which may agree by chance.
The first batch runs again with five of its samples in another order, one of them twice. The axis that grows holds the
samples, if its rows are then those of their samples. Windows of a sample and positions beside samples on one axis are
recognized by the same rows; outputs of which no rows follow (tokens routed to experts, similarities between samples)
are refused. The axis of features follows from the type of the module that made the output, or of one that reads it
(`Linear` reads the last axis, `Conv2d` the second), else from what is around it. `layer.info.layout.words` says what
was found and how. Where nothing settles an axis, `study.skipped` has the reason, and
`reading=kw.Reading(feature_axis={{"encoder.mix": 1}})` says which axis it is. `reading=kw.Reading(axes=study)` takes
the axes from a study and saves the passes.

A network that draws at random, or whose outputs change from one pass to the next, cannot be tried so: the axis whose
length follows the number of samples is taken there, and a warning says so.

Images from a folder are prepared as the model's folder says (`preprocessor_config.json`), or by `--mean` and `--std`;
a network of timm has its numbers in `pretrained_cfg`, which the command names but does not apply.

## Tested architectures

{count} architectures, {transformers} of `transformers` and {timm} of `timm`, each built small from its configuration,
with random weights, and studied on 12 random samples in three batches: texts of several lengths with attention masks,
images, sound. Of three layers of each, an early, a middle and a late one, the number of vectors, the effective rank and
the coherence are computed once more, from plain forward hooks with NumPy. They agree within {tolerance:g}. A layer
without a row is refused for the reason that the record gives in `skipped`.

Below them stand {ways} networks whose weights are elsewhere or of fewer bits, that have adapters, that generate (five
tokens an answer; the numbers are those of one plain pass over prompts and answers), and experts of mixtures, each with
the tokens that were routed to it.

Axes: N samples, d features, T tokens that the attention mask counts, U those of a decoder, P patches or frames, H and W
of images, Q positions in a window; in parentheses what stands on one axis. The test is
`tests/networks/test_works_with.py`; `python tests/networks/works_with.py` writes this page.

| architecture | class | rows | layer | axes | vectors | d | effective rank | coherence, bits |
|---|---|---|---|---|---|---|---|---|
"""

TOLERANCE = 1e-4

Batch = dict[str, Tensor] | Tensor
Built = tuple[nn.Module, list[Batch]]


@dataclass(frozen=True)
class Architecture:
    """How a network and its batches are made, and the axes of three layers; a reason for a layer without a row.

    `chosen` and `forward` are for `study`; `read` gives the batches of a plain pass over the same tokens.
    """

    build: Callable[[], Built]
    layers: Mapping[str, str]
    library: str
    chosen: Any = None
    forward: Any = None
    read: Callable[[nn.Module, list[Batch]], list[Batch]] = lambda model, batches: batches


@dataclass(frozen=True)
class Expected:
    """What a row must say."""

    vectors: int
    d: int
    effective_rank: float
    coherence: float


def expected(model: nn.Module, batches: list[Batch], layers: Mapping[str, str]) -> dict[str, Expected]:
    """What each layer's row must say, by plain hooks and NumPy."""
    rows: dict[str, list[np.ndarray]] = {path: [] for path in layers}
    calls: list[str] = []

    def hook(path: str) -> Callable[..., None]:
        def note(module: nn.Module, inputs: Any, output: Any) -> None:
            if path in calls:
                return  # the first call
            calls.append(path)
            tensor = next(each for each in _tensors(output) if each.ndim)  # not the loss
            rows[path].append(_vectors(tensor.double().numpy().copy(), layers[path], batch))

        return note

    def expert(path: str) -> Callable[..., None]:
        def note(module: nn.Module, inputs: Any) -> None:
            tokens, to = inputs[0].double().numpy(), inputs[1].numpy()
            number = int(path.partition("[")[2][:-1])
            mine = _vectors((to == number).any(axis=1, keepdims=True).astype(float), layers[path], batch)[
                :, 0
            ]
            rows[path].append(_vectors(tokens, layers[path], batch)[mine > 0])

        return note

    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    handles = []
    for path in layers:
        module = base if path == "(model)" else base.get_submodule(path.partition(":")[0])
        put = (
            module.register_forward_pre_hook(expert(path))
            if ":" in path
            else module.register_forward_hook(hook(path))
        )
        handles.append(put)
    model.eval()
    for batch in batches:
        calls.clear()
        with torch.no_grad():
            model(**batch) if isinstance(batch, dict) else model(batch)
    for handle in handles:
        handle.remove()
    return {path: _numbers(np.concatenate(parts)) for path, parts in rows.items()}


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, (tuple, list, Mapping)):
        for each in output.values() if isinstance(output, Mapping) else output:
            yield from _tensors(each)


def _vectors(output: np.ndarray, axes: str, batch: Batch) -> np.ndarray:
    """The vectors (n, d) of an output whose axes are written as `N T d` or `(N P) Q d`."""
    n = len(next(iter(batch.values())) if isinstance(batch, dict) else batch)
    shape: list[int] = []
    names: list[str] = []
    groups = re.findall(r"\(.*?\)|\w", axes)
    assert len(groups) == output.ndim, (axes, output.shape)
    for group, size in zip(groups, output.shape, strict=True):
        inner = group.strip("()").split()
        names += inner
        shape += [size] if len(inner) == 1 else [n if name == "N" else size // n for name in inner]
    output = output.reshape(shape)
    d = names.index("d") if "d" in names else None
    output = output[..., None] if d is None else np.moveaxis(output, d, -1)
    names = [name for name in names if name != "d"]
    output = np.moveaxis(output, names.index("N"), 0)
    assert len(output) == n, (axes, output.shape)
    present = np.ones(output.shape[:-1], dtype=bool)
    if isinstance(batch, dict) and "T" in names:
        present = batch["attention_mask"].numpy() != 0
    if isinstance(batch, dict) and "U" in names:
        present = batch["labels"].numpy() != -100
    return output[present]


def _numbers(vectors: np.ndarray) -> Expected:
    norms = np.linalg.norm(vectors, axis=1)
    kets = vectors[norms > 0] / norms[norms > 0, None]
    rho = kets.T @ kets / len(kets)
    entropy = _entropy(np.linalg.eigvalsh(rho))
    return Expected(len(kets), rho.shape[0], 2**entropy, _entropy(np.diag(rho)) - entropy)


def _entropy(p: np.ndarray) -> float:
    p = p[p > 0]
    return float(-np.sum(p * np.log2(p)))


def studied(name: str) -> tuple[kw.Study, dict[str, Expected]]:
    """The study of an architecture, and what its layers must say."""
    architecture = ARCHITECTURES[name]
    torch.manual_seed(0)
    model, batches = architecture.build()
    record = kw.study(model, batches, labels=False, layers=architecture.chosen, forward=architecture.forward)
    return record, expected(model, architecture.read(model, batches), architecture.layers)


def row_of(record: kw.Study, path: str) -> kw.Layer | None:
    """The row of a layer's first call, None if it has none."""
    rows = (row for row in record if row.call in (0, POOLED) and path in (row.name, *row.aliases))
    return next(rows, None)


def lines(name: str, record: kw.Study) -> list[str]:
    """An architecture's lines of the page."""
    head = f"| {name} | `{record.settings['model']}` | {len(list(record))}"
    written = []
    for path, axes in ARCHITECTURES[name].layers.items():
        row = row_of(record, path)
        if row is None:
            written.append(f"{head} | `{path}` | {axes} | refused: {record.skipped[path]} | | | |")
        else:
            rank, coherence = row.effective_rank.plain, max(row.coherence.plain, 0.0)
            numbers = f"{row.kets} | {row.d} | {rank:.3f} | {coherence:.3f}"
            written.append(f"{head} | `{path}` | {axes} | {numbers} |")
        head = "| | |"
    return written


def page_head() -> str:
    """What stands above the table's rows."""
    libraries = [each.library for each in ARCHITECTURES.values()]
    counts = {library: libraries.count(library) for library in ("transformers", "timm", "ways")}
    return HEAD.format(count=len(libraries) - counts["ways"], **counts, tolerance=TOLERANCE)


def _texts(seed: int = 1) -> list[dict[str, Tensor]]:
    draw = torch.Generator().manual_seed(seed)
    batches = []
    for length in (12, 12, 9):
        tokens = torch.randint(3, 40, (4, length), generator=draw)
        lengths = torch.tensor([length, length - 2, length - 4, length - 6])
        batches.append(
            {"input_ids": tokens, "attention_mask": (torch.arange(length) < lengths[:, None]).long()}
        )
    return batches


def _with_labels(batches: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """With target texts of 6 tokens, one of them of 4."""
    draw = torch.Generator().manual_seed(2)
    for batch in batches:
        batch["labels"] = torch.randint(3, 40, (4, 6), generator=draw)
        batch["labels"][1, 4:] = -100
    return batches


def _floats(*shape: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(1)
    return [torch.randn(4, *shape, generator=draw) for _ in range(3)]


def _named(name: str, tensors: list[Tensor]) -> list[dict[str, Tensor]]:
    return [{name: tensor} for tensor in tensors]


def _hugging_face(
    model: str, batches: Callable[[], list[Any]], layers: Mapping[str, str], /, **settings: Any
) -> Architecture:
    def build() -> Built:
        transformers = importlib.import_module("transformers")
        kind = getattr(transformers, model)
        return kind(kind.config_class(**settings)), batches()

    return Architecture(build, layers, "transformers")


def _image_model(
    module: str, make: str, layers: Mapping[str, str], /, *arguments: Any, size: int = 32, **settings: Any
) -> Architecture:
    """One of timm, by the function or class that makes it; of arguments what is callable is called with its module."""

    def build() -> Built:
        with _torchvision():
            models = importlib.import_module(f"timm.models.{module}")
        given = [argument(models) if callable(argument) else argument for argument in arguments]
        return getattr(models, make)(*given, num_classes=5, **settings), list(_floats(3, size, size))

    return Architecture(build, layers, "timm")


class _Names(type):
    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class _StandIn(ModuleType):
    __path__: list[str] = []  # noqa: RUF012

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Names(name, (), {})


@contextmanager
def _torchvision() -> Iterator[None]:
    """A stand-in for torchvision where it is not installed, while timm is imported.

    timm's networks need nothing of it but names, and its builds fit one build of PyTorch alone.
    """
    if "timm" in sys.modules or importlib.util.find_spec("torchvision") is not None:
        yield
        return
    parts = ("", ".datasets", ".models", ".models.feature_extraction", ".ops", ".ops.misc", ".transforms")
    names = [f"torchvision{part}" for part in (*parts, ".transforms.functional")]
    for name in names:
        sys.modules[name] = _StandIn(name)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, sys.modules[name])
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


_TOKENS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_ENCODER = {
    "vocab_size": 40,
    "hidden_size": 12,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
}
_DECODER = _ENCODER | _TOKENS
_GROUPED = _DECODER | {"num_key_value_heads": 1, "head_dim": 6}
_DEEPSEEK = _DECODER | {
    "num_key_value_heads": 2,
    "first_k_dense_replace": 1,
    "moe_intermediate_size": 8,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 2,
    "kv_lora_rank": 6,
    "q_lora_rank": 6,
    "qk_rope_head_dim": 2,
    "qk_nope_head_dim": 4,
    "v_head_dim": 6,
}
_VISION = {
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": 32,
    "patch_size": 8,
}
_SEQ2SEQ = {
    "vocab_size": 40,
    "d_model": 12,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
}
_LLAMA = {
    "model.layers.0.self_attn": "N T d",
    "model.layers.1": "N T d",
    "(model)": "N T d",
}
_BERT = {"embeddings": "N T d", "encoder.layer.0.intermediate": "N T d", "encoder.layer.1.output": "N T d"}


def _within(prefix: str, layers: Mapping[str, str]) -> dict[str, str]:
    return {f"{prefix}.{path}": axes for path, axes in layers.items()}


def _images() -> list[dict[str, Tensor]]:
    return _named("pixel_values", _floats(3, 32, 32))


def _targets() -> list[dict[str, Tensor]]:
    return _with_labels(_texts())


def _pairs() -> list[dict[str, Tensor]]:
    return [text | image for text, image in zip(_texts(), _images(), strict=True)]


_TRANSFORMERS = {
    "gpt2": _hugging_face(
        "GPT2LMHeadModel",
        _texts,
        {"transformer.h.0.attn": "N T d", "transformer.h.1": "N T d", "lm_head": "N T d"},
        vocab_size=40,
        n_embd=12,
        n_layer=2,
        n_head=2,
        n_positions=32,
        bos_token_id=1,
        eos_token_id=2,
    ),
    "llama": _hugging_face("LlamaForCausalLM", _texts, _LLAMA, **_GROUPED),
    "mistral": _hugging_face("MistralForCausalLM", _texts, _LLAMA, **_GROUPED, sliding_window=4),
    "qwen2": _hugging_face("Qwen2ForCausalLM", _texts, _LLAMA, **_GROUPED),
    "qwen3": _hugging_face("Qwen3ForCausalLM", _texts, _LLAMA, **_GROUPED),
    "gemma2": _hugging_face("Gemma2ForCausalLM", _texts, _LLAMA, **_GROUPED),
    "phi3": _hugging_face("Phi3ForCausalLM", _texts, _LLAMA, **_GROUPED),
    "gpt_neox": _hugging_face(
        "GPTNeoXForCausalLM",
        _texts,
        {"gpt_neox.layers.0": "N T d", "gpt_neox.layers.1.mlp": "N T d", "(model)": "N T d"},
        **_DECODER,
    ),
    "opt": _hugging_face(
        "OPTForCausalLM",
        _texts,
        {
            "model.decoder.layers.0.fc1": "(N T) d",
            "model.decoder.layers.1": "N T d",
            "model.decoder.project_out": "N T d",
        },
        vocab_size=40,
        hidden_size=12,
        ffn_dim=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
        word_embed_proj_dim=8,
        **_TOKENS,
    ),
    "bloom": _hugging_face(
        "BloomForCausalLM",
        _texts,
        {
            "transformer.h.0.self_attention": "N T d",
            "transformer.h.1": "N T d",
            "lm_head": "N T d",
        },
        vocab_size=40,
        hidden_size=12,
        n_layer=2,
        n_head=2,
        **_TOKENS,
    ),
    "falcon": _hugging_face(
        "FalconForCausalLM",
        _texts,
        {"transformer.h.0": "N T d", "transformer.h.1.mlp": "N T d", "lm_head": "N T d"},
        **_DECODER,
    ),
    "mixtral": _hugging_face(
        "MixtralForCausalLM",
        _texts,
        {
            "model.layers.0.mlp.gate": "(N T) d",
            "model.layers.0.mlp.experts": "(N T) d",
            "model.layers.1": "N T d",
        },
        **_GROUPED,
        num_local_experts=4,
    ),
    "deepseek_v3": _hugging_face(
        "DeepseekV3ForCausalLM",
        _texts,
        {
            "model.layers.1.mlp.gate": "(N T) d",
            "model.layers.1.mlp.experts": "(N T) d",
            "model.layers.1": "N T d",
        },
        **_DEEPSEEK,
    ),
    "mamba": _hugging_face(
        "MambaForCausalLM",
        _texts,
        {"backbone.layers.0": "N T d", "backbone.layers.1.mixer": "N T d", "lm_head": "N T d"},
        vocab_size=40,
        hidden_size=12,
        state_size=4,
        num_hidden_layers=2,
        **_TOKENS,
    ),
    "bert": _hugging_face("BertForMaskedLM", _texts, _within("bert", _BERT), **_ENCODER),
    "roberta": _hugging_face("RobertaForMaskedLM", _texts, _within("roberta", _BERT), **_DECODER),
    "distilbert": _hugging_face(
        "DistilBertForMaskedLM",
        _texts,
        {
            "distilbert.embeddings": "N T d",
            "distilbert.transformer.layer.0": "N T d",
            "vocab_projector": "N T d",
        },
        vocab_size=40,
        dim=12,
        hidden_dim=24,
        n_layers=2,
        n_heads=2,
        max_position_embeddings=32,
    ),
    "albert": _hugging_face(
        "AlbertForMaskedLM",
        _texts,
        {
            "albert.embeddings": "N T d",
            "albert.encoder.albert_layer_groups.0.albert_layers.0": "N T d",
            "predictions": "N T d",
        },
        **_ENCODER,
        embedding_size=8,
    ),
    "electra": _hugging_face(
        "ElectraForPreTraining",
        _texts,
        {
            "electra.embeddings_project": "N T d",
            "electra.encoder.layer.1.output": "N T d",
            "discriminator_predictions": "N T",
        },
        **_ENCODER,
        embedding_size=8,
    ),
    "deberta-v2": _hugging_face(
        "DebertaV2ForMaskedLM",
        _texts,
        {
            "deberta.encoder.layer.0.attention.self": "N T d",
            "deberta.encoder.layer.1.output": "N T d",
            "cls.predictions.transform": "N T d",
        },
        **_ENCODER,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
    ),
    "xlnet": _hugging_face(
        "XLNetLMHeadModel",
        _texts,
        {
            "transformer.layer.0.rel_attn": "T N d",
            "transformer.layer.1.ff": "T N d",
            "lm_loss": "N T d",
        },
        vocab_size=40,
        d_model=12,
        n_layer=2,
        n_head=2,
        d_inner=24,
    ),
    "t5": _hugging_face(
        "T5ForConditionalGeneration",
        _targets,
        {
            "encoder.block.0.layer.0.SelfAttention": "N T d",
            "decoder.block.0.layer.1.EncDecAttention": "N U d",
            "lm_head": "N U d",
        },
        vocab_size=40,
        d_model=12,
        d_ff=24,
        num_layers=2,
        num_heads=2,
        d_kv=6,
        decoder_start_token_id=0,
    ),
    "bart": _hugging_face(
        "BartForConditionalGeneration",
        _targets,
        {
            "model.encoder.layers.1": "N T d",
            "model.decoder.layers.0.encoder_attn.out_proj": "N U d",
            "(model)": "N U d",
        },
        **_SEQ2SEQ,
        **_TOKENS,
        max_position_embeddings=32,
        decoder_start_token_id=2,
        forced_eos_token_id=None,
    ),
    "whisper": _hugging_face(
        "WhisperForConditionalGeneration",
        lambda: _with_labels(_named("input_features", _floats(8, 24))),
        {
            "model.encoder.conv2": "N d P",
            "model.decoder.layers.0.encoder_attn.out_proj": "N U d",
            "proj_out": "N U d",
        },
        **_SEQ2SEQ,
        **_TOKENS,
        num_mel_bins=8,
        max_source_positions=12,
        max_target_positions=12,
        decoder_start_token_id=1,
    ),
    "wav2vec2": _hugging_face(
        "Wav2Vec2ForCTC",
        lambda: _named("input_values", _floats(240)),
        {
            "wav2vec2.feature_extractor.conv_layers.1.activation": "N d P",
            "wav2vec2.encoder.pos_conv_embed": "N P d",
            "wav2vec2.encoder.layers.1": "N P d",
        },
        vocab_size=20,
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        conv_dim=(12, 12),
        conv_stride=(5, 2),
        conv_kernel=(10, 3),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
    ),
    "clip": _hugging_face(
        "CLIPModel",
        _pairs,
        {
            "vision_model.encoder.layers.0": "N P d",
            "text_model.encoder.layers.1": "N T d",
            "text_projection": "N d",
        },
        text_config=_DECODER,
        vision_config=_VISION,
        projection_dim=8,
    ),
    "vit": _hugging_face(
        "ViTForImageClassification",
        _images,
        {"vit.embeddings.patch_embeddings": "N P d", "vit.layers.1": "N P d", "classifier": "N d"},
        **_VISION,
    ),
    "swin": _hugging_face(
        "SwinForImageClassification",
        _images,
        {
            "swin.encoder.layers.0.blocks.0.attention": "(N P) Q d",
            "swin.encoder.layers.0.downsample": "N P d",
            "swin.encoder.layers.1.blocks.1": "N P d",
        },
        image_size=32,
        patch_size=2,
        embed_dim=8,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=4,
    ),
    "convnext": _hugging_face(
        "ConvNextForImageClassification",
        _images,
        {
            "convnext.encoder.stages.0.layers.0": "N d H W",
            "convnext.encoder.stages.0.layers.1.pwconv2": "N H W d",
            "convnext.encoder.stages.1.layers.1": "N d H W",
        },
        patch_size=4,
        hidden_sizes=[8, 16],
        depths=[2, 2],
        num_stages=2,
    ),
    "segformer": _hugging_face(
        "SegformerForImageClassification",
        _images,
        {
            "segformer.stages.0.patch_embeddings": "N P d",
            "segformer.stages.0": "N d H W",
            "segformer.stages.1.blocks.0": "N P d",
        },
        hidden_sizes=[8, 12],
        depths=[1, 1],
        num_encoder_blocks=2,
        sr_ratios=[2, 1],
        patch_sizes=[7, 3],
        strides=[4, 2],
        num_attention_heads=[1, 2],
        mlp_ratios=[2, 2],
        decoder_hidden_size=12,
    ),
    "resnet": _hugging_face(
        "ResNetForImageClassification",
        _images,
        {
            "resnet.encoder.stages.0.layers.0": "N d H W",
            "resnet.encoder.stages.1.layers.1": "N d H W",
            "resnet.pooler": "N d H W",
        },
        embedding_size=8,
        hidden_sizes=[8, 16],
        depths=[2, 2],
        layer_type="basic",
    ),
}

_RESNET = {"layers": (1, 1, 1, 1), "channels": (8, 8, 16, 16), "stem_width": 8}
_VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 12, "depth": 2, "num_heads": 2}
_STAGES = {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16)}

_TIMM = {
    "resnet18": _image_model(
        "resnet", "resnet18", {"maxpool": "N d H W", "layer2.0": "N d H W", "layer4.0": "N d H W"}, **_RESNET
    ),
    "resnet50": _image_model(
        "resnet", "resnet50", {"act1": "N d H W", "layer2.0.conv3": "N d H W", "fc": "N d"}, **_RESNET
    ),
    "efficientnet_b0": _image_model(
        "efficientnet",
        "_gen_efficientnet",
        {"blocks.0.0.se": "N d H W", "blocks.2.0": "N d H W", "conv_head": "N d H W"},
        variant="efficientnet_b0",
        channel_multiplier=0.2,
        depth_multiplier=0.1,
    ),
    "mobilenetv3": _image_model(
        "mobilenetv3",
        "_gen_mobilenet_v3",
        {"blocks.0.0": "N d H W", "blocks.2.1.se": "N d H W", "classifier": "N d"},
        variant="mobilenetv3_small_050",
        channel_multiplier=0.25,
        depth_multiplier=0.5,
    ),
    "convnext_atto": _image_model(
        "convnext",
        "convnext_atto",
        {"stages.0.blocks.0": "N d H W", "stages.1.blocks.0.mlp": "N d H W", "head.fc": "N d"},
        **_STAGES,
    ),
    "convnext_tiny": _image_model(
        "convnext",
        "convnext_tiny",
        {"stages.0.blocks.0": "N d H W", "stages.1.blocks.0.mlp": "N H W d", "stages.2.blocks.0": "N d H W"},
        **_STAGES,
    ),
    "vit_tiny": _image_model(
        "vision_transformer",
        "vit_tiny_patch16_224",
        {"patch_embed": "N P d", "blocks.0.attn": "N P d", "blocks.1": "N P d"},
        **_VIT,
    ),
    "deit_tiny_distilled": _image_model(
        "deit",
        "deit_tiny_distilled_patch16_224",
        {"patch_embed": "N P d", "blocks.1.mlp": "N P d", "head_dist": "N d"},
        **_VIT,
    ),
    "beit_base": _image_model(
        "beit",
        "beit_base_patch16_224",
        {"patch_embed": "N P d", "blocks.0.attn": "N P d", "blocks.1": "N P d"},
        **_VIT,
    ),
    "swin_tiny": _image_model(
        "swin_transformer",
        "swin_tiny_patch4_window7_224",
        {
            "layers.0.blocks.0.attn": "(N P) Q d",
            "layers.0.blocks.1": "N H W d",
            "layers.1.downsample": "N H W d",
        },
        img_size=32,
        window_size=4,
        embed_dim=12,
        depths=(2, 2),
        num_heads=(2, 4),
    ),
    "xcit_nano": _image_model(
        "xcit",
        "xcit_nano_12_p16_224",
        {"blocks.0.local_mp": "N P d", "blocks.1": "N P d", "cls_attn_blocks.1": "N P d"},
        img_size=32,
        depth=2,
        embed_dim=16,
        num_heads=2,
    ),
    "cait_xxs24": _image_model(
        "cait",
        "cait_xxs24_224",
        {"patch_embed": "N P d", "blocks.1": "N P d", "blocks_token_only.1": "N P d"},
        img_size=32,
        patch_size=8,
        depth=2,
        embed_dim=16,
        num_heads=2,
    ),
    "mlp_mixer": _image_model(
        "mlp_mixer",
        "MlpMixer",
        {"stem": "N P d", "blocks.0.mlp_tokens.fc2": "N P d", "blocks.1": "N P d"},
        img_size=32,
        patch_size=8,
        num_blocks=2,
        embed_dim=16,
    ),
    "poolformer_s12": _image_model(
        "metaformer",
        "MetaFormer",
        {"stages.0.blocks.0": "N d H W", "stages.1.blocks.0.mlp": "N d H W", "stages.3.blocks.0": "N d H W"},
        **_STAGES,
        mlp_act=nn.GELU,
    ),
    "edgenext_xx_small": _image_model(
        "edgenext",
        "edgenext_xx_small",
        {
            "stages.0.blocks.0.mlp": "N H W d",
            "stages.1.blocks.0": "N d H W",
            "stages.2.blocks.0.xca": "N P d",
        },
        **_STAGES,
        heads=(1, 1, 2, 2),
    ),
    "regnetx": _image_model(
        "regnet",
        "RegNet",
        {"stem": "N d H W", "s2.b1": "N d H W", "head.fc": "N d"},
        lambda models: models.RegNetCfg(depth=6, w0=8, wa=12.0, wm=2.0, group_size=4, stem_width=8),
    ),
    "densenet": _image_model(
        "densenet",
        "DenseNet",
        {
            "features.denseblock1.denselayer1": "N d H W",
            "features.transition1.pool": "N d H W",
            "features.denseblock2.denselayer2": "N d H W",
        },
        block_config=(2, 2),
        growth_rate=8,
    ),
    "ghostnet": _image_model(
        "ghostnet",
        "GhostNet",
        {"blocks.0.0.ghost1": "N d H W", "blocks.1.0": "N d H W", "classifier": "N d"},
        [[[3, 16, 16, 0, 1]], [[3, 48, 24, 0.25, 2]]],
    ),
    "nfnet": _image_model(
        "nfnet",
        "NormFreeNet",
        {"stages.0.0": "N d H W", "stages.1.0.conv2": "N d H W", "final_conv": "N d H W"},
        lambda models: models.NfCfg(depths=(1, 1), channels=(16, 32), stem_chs=8, num_features=32),
    ),
    "coatnet_nano": _image_model(
        "maxxvit",
        "coatnet_nano_rw_224",
        {"stages.0.blocks.0": "N d H W", "stages.1.blocks.0.attn": "N d H W", "stages.1.blocks.0": "N d H W"},
        size=64,
        img_size=64,
        embed_dim=(32, 32),
        depths=(1, 1),
        stem_width=8,
        block_type=("C", "T"),
    ),
    "maxvit_rmlp_pico": _image_model(
        "maxxvit",
        "maxvit_rmlp_pico_rw_256",
        {
            "stages.0.blocks.0.attn_grid": "N H W d",
            "stages.0.blocks.0": "N d H W",
            "stages.1.blocks.0": "N d H W",
        },
        size=64,
        img_size=64,
        embed_dim=(32, 32),
        depths=(1, 1),
        stem_width=8,
    ),
}


def _changed(name: str, change: Callable[[nn.Module], nn.Module]) -> Architecture:
    """An architecture of `transformers` whose network is made into another one."""
    plain = _TRANSFORMERS[name]

    def build() -> Built:
        model, batches = plain.build()
        return change(model.eval()), batches

    return Architecture(build, plain.layers, "ways")


def _offloaded(model: nn.Module) -> nn.Module:
    accelerate = importlib.import_module("accelerate")
    return accelerate.cpu_offload(model, execution_device=torch.device("cpu"))


def _on_disk(model: nn.Module) -> nn.Module:
    accelerate = importlib.import_module("accelerate")
    folder = tempfile.mkdtemp()
    weakref.finalize(model, shutil.rmtree, folder, ignore_errors=True)
    return accelerate.disk_offload(model, folder, execution_device=torch.device("cpu"))


def _mapped(model: nn.Module) -> nn.Module:
    accelerate = importlib.import_module("accelerate")
    return accelerate.dispatch_model(model, {"": "cpu"}, main_device="cpu", force_hooks=True)


def _quantized(config: str, **settings: Any) -> Callable[[nn.Module], nn.Module]:
    def change(model: nn.Module) -> nn.Module:
        quantization = importlib.import_module("torchao.quantization")
        quantization.quantize_(model, getattr(quantization, config)(**settings))
        return model

    return change


def _adapted(model: nn.Module) -> nn.Module:
    peft = importlib.import_module("peft")
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    return peft.get_peft_model(model, config)


_GGUF = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def _from_gguf() -> Built:
    """A Llama that was written to a GGUF file of 8 bits a weight, and loaded from it."""
    gguf, transformers = importlib.import_module("gguf"), importlib.import_module("transformers")
    settings = _GROUPED | {"hidden_size": 32, "intermediate_size": 64, "head_dim": 16}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**settings))
    names = {
        f"model.layers.{i}.{ours}.weight": f"blk.{i}.{theirs}.weight"
        for i in range(2)
        for ours, theirs in _GGUF.items()
    }
    names |= {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    kind = gguf.GGMLQuantizationType.Q8_0
    with tempfile.TemporaryDirectory() as folder:
        writer = gguf.GGUFWriter(f"{folder}/llama.gguf", "llama")
        for what, value in {
            "context_length": 32, "embedding_length": 32, "block_count": 2, "feed_forward_length": 64,
            "head_count": 2, "head_count_kv": 1, "layer_norm_rms_eps": 1e-6, "rope_dimension_count": 16,
            "rope_freq_base": 10000.0, "vocab_size": 40, "key_length": 16, "value_length": 16,
        }.items():  # fmt: skip
            getattr(writer, f"add_{what}")(value)
        for name, tensor in model.state_dict().items():
            array = tensor.numpy()
            if array.ndim == 1:
                writer.add_tensor(names[name], array)
            else:
                writer.add_tensor(names[name], gguf.quantize(array, kind), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        loaded = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file="llama.gguf")
    return loaded, list(_texts())


def _answered(model: Any, batches: list[Batch]) -> list[Batch]:
    """Prompts, padded on the left, with the answers that the network gives them, less the last token of each."""
    plain: list[Batch] = []
    model.eval()
    for batch in batches:
        assert isinstance(batch, dict)
        order = batch["attention_mask"].argsort(dim=1, stable=True)
        tokens, mask = (batch[name].gather(1, order) for name in ("input_ids", "attention_mask"))
        with torch.no_grad():
            whole = model.generate(
                input_ids=tokens,
                attention_mask=mask,
                max_new_tokens=5,
                do_sample=False,
                eos_token_id=[],
                pad_token_id=0,
            )
        mask = torch.cat([mask, torch.ones_like(whole[:, tokens.shape[1] : -1])], dim=1)
        places = (mask.cumsum(dim=1) - 1).clamp(min=0)
        plain.append({"input_ids": whole[:, :-1], "attention_mask": mask, "position_ids": places})
    return plain


def _generating(name: str) -> Architecture:
    plain = _TRANSFORMERS[name]
    forward = kw.generate(5, eos_token_id=[])
    return Architecture(plain.build, plain.layers, "ways", None, forward, _answered)


def _experts(name: str, path: str) -> Architecture:
    rows = {f"{path}:expert[{i}]": "(N T) d" for i in range(3)}
    return Architecture(_TRANSFORMERS[name].build, rows, "ways", "experts")


_WAYS = {
    "llama, a device map (accelerate)": _changed("llama", _mapped),
    "llama, offloaded to the CPU": _changed("llama", _offloaded),
    "llama, offloaded to disk": _changed("llama", _on_disk),
    "llama, bfloat16": _changed("llama", lambda model: model.to(torch.bfloat16)),
    "llama, weights of 8 bits (torchao)": _changed("llama", _quantized("Int8WeightOnlyConfig")),
    "llama, weights of 4 bits (torchao)": _changed(
        "llama", _quantized("IntxWeightOnlyConfig", weight_dtype=torch.int4)
    ),
    "llama, loaded from GGUF": Architecture(_from_gguf, _LLAMA, "ways"),
    "llama, adapters (peft)": _changed("llama", _adapted),
    "llama, generating": _generating("llama"),
    "gpt2, generating": _generating("gpt2"),
    "mixtral, generating": _generating("mixtral"),
    "mixtral, experts": _experts("mixtral", "model.layers.0.mlp.experts"),
    "deepseek_v3, experts": _experts("deepseek_v3", "model.layers.1.mlp.experts"),
}

ARCHITECTURES = _TRANSFORMERS | {f"timm {name}": each for name, each in _TIMM.items()} | _WAYS


if __name__ == "__main__":
    torch.set_num_threads(1)
    table = [line for name in ARCHITECTURES for line in lines(name, studied(name)[0])]
    PAGE.write_text(page_head() + "\n".join(table) + "\n", encoding="utf-8")
