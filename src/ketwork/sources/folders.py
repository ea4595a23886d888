"""Hugging Face model folders, read offline (extra `hf`)."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from torch import nn

from ketwork.records import irregular
from ketwork.sources.errors import DAMAGED, SourceError, listed
from ketwork.sources.images import Processor

_TOKENIZER_FILES = ("tokenizer*", "vocab*", "merges.txt", "*.model")
_PROCESSOR = "preprocessor_config.json"
_UNLIMITED = 10**9  # transformers says 10³⁰ where a tokenizer does not know its model's longest input


class Folder(NamedTuple):
    """The network of a folder, its tokenizer and image processor where it has them, and remarks on what was loaded."""

    model: nn.Module
    tokenizer: Any | None
    notes: tuple[str, ...]
    processor: Processor | None = None


def load_folder(path: Path) -> Folder:
    """The network and tokenizer of a folder that `save_pretrained` wrote; no network access, no remote code.

    Tensors that the folder lacks (a pooler, often) are initialised at random by transformers and named in
    `notes`; a folder that lacks more than half of them is refused as one of another architecture.
    """
    if not (path / "config.json").is_file():
        raise SourceError(
            f"Argument `model` must be a Hugging Face model folder, but {path} has no config.json. "
            "Give the folder that `save_pretrained` wrote, or `package.module:factory`."
        )
    for file in sorted(path.iterdir()):
        if not file.is_dir() and (kind := irregular(file)) is not None:
            raise SourceError(
                f"Argument `model` must be a Hugging Face model folder of files, but {file} is {kind}. Remove it."
            )
    config = _config(path)
    try:
        import transformers
    except ImportError as error:
        raise SourceError(
            "Argument `model` is a Hugging Face folder, which needs the transformers package, but it is not "
            "installed. Run `pip install 'ketwork[hf]'`."
        ) from error
    with _quiet(transformers.utils.logging):
        model, info = _network(transformers, path, config)
        tokenizer = _tokenizer(transformers, path, model)
        processor = _processor(transformers, path)
    missing = sorted(info["missing_keys"])
    total = len(model.state_dict())
    if 2 * len(missing) > total:
        raise SourceError(
            f"Argument `model` must be a folder whose weights fit its config.json, but {path} lacks "
            f"{len(missing)} of "
            f"the {total} tensors of a {type(model).__name__}: its weights are of another architecture "
            f"(missing: {listed(missing, 4)})."
        )
    notes = (f"Not in {path.name}, so initialised at random: {listed(missing, 4)}.",) if missing else ()
    return Folder(model, tokenizer, notes, processor)


def _config(path: Path) -> Mapping[str, Any]:
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise SourceError(
            f"Argument `model` must be a Hugging Face model folder, but the config.json of {path} holds no object."
        )
    return config


def _refusals() -> tuple[type[Exception], ...]:
    """What transformers raises on a folder that it cannot load; its own checks raise no ValueErrors."""
    from huggingface_hub import errors

    strict = getattr(errors, "StrictDataclassError", ValueError)  # of newer versions alone
    return (*DAMAGED, ImportError, SafetensorError, strict)


def _network(transformers: Any, path: Path, config: Mapping[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    try:
        model, info = _class(transformers, config).from_pretrained(
            path, local_files_only=True, trust_remote_code=False, output_loading_info=True
        )
    except _refusals() as error:
        first = _first_line(error)
        if "auto_map" in config:
            first = "it comes with code of its own (auto_map in its config.json), which is not run"
        elif _of_pickles(error):
            first = "its weights are pickled and hold more than tensors, which could run code"
        elif isinstance(error, SafetensorError):
            first = f"its weights are truncated or not safetensors: {first}"
        elif isinstance(error, RuntimeError):
            first = f"its weights are of another architecture than its config.json says: {first}"
        raise SourceError(
            f"Argument `model` must be a Hugging Face model folder that loads, but {path} does not: {first}"
        ) from error
    return model, info


def _of_pickles(error: BaseException | None) -> bool:
    """Whether a pickle was refused; older versions of transformers raise an error of their own from that."""
    while error is not None and not isinstance(error, pickle.UnpicklingError):
        error = error.__cause__ or error.__context__
    return error is not None


def _class(transformers: Any, config: Mapping[str, Any]) -> Any:
    """The class that wrote the folder, its head included; the network without one where transformers lacks it."""
    names = config.get("architectures")
    for name in names if isinstance(names, list) else ():
        kind = getattr(transformers, name, None) if isinstance(name, str) else None
        own = getattr(getattr(kind, "config_class", None), "model_type", None)
        if own is not None and own == config.get("model_type"):
            return kind
    return transformers.AutoModel


def _tokenizer(transformers: Any, path: Path, model: Any) -> Any | None:
    files = {file.name for pattern in _TOKENIZER_FILES for file in path.glob(pattern)}
    if not files:
        return None
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            path, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # the tokenizers package raises plain ones
        if files == {"tokenizer_config.json"}:  # without a vocabulary older versions fail
            return None
        raise SourceError(
            f"Argument `model` must be a Hugging Face model folder that loads, but the tokenizer of {path} "
            "does not: "
            f"{_first_line(error)} Fix its files, or remove them to study the network without texts."
        ) from error
    # Of a folder without a vocabulary, transformers makes one of special tokens alone: all words unknown.
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        return None
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # padded positions are masked, so any token will do
    longest = getattr(model.config, "max_position_embeddings", None)
    if tokenizer.model_max_length > _UNLIMITED and longest:
        tokenizer.model_max_length = longest
    return tokenizer


def _processor(transformers: Any, path: Path) -> Processor | None:
    """The image processor of the folder; where it does not load, why."""
    if not (path / _PROCESSOR).is_file():
        return None
    try:
        run = transformers.AutoImageProcessor.from_pretrained(
            path, local_files_only=True, trust_remote_code=False
        )
    except _refusals() as error:
        return Processor(_PROCESSOR, None, f"it does not load ({_first_line(error).rstrip('.')})")
    return Processor(_PROCESSOR, run)


def _first_line(error: Exception) -> str:
    words = str(error).strip()
    return words.splitlines()[0] if words else type(error).__name__


@contextmanager
def _quiet(logging: Any) -> Iterator[None]:
    """No bars and load reports from transformers: what matters of them is in the result."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
