"""`Axes`: what is known of the axes of a network's outputs, from experiments, from a study, or as given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from ketwork.networks.activations.feature_axis import made_axis
from ketwork.networks.activations.findings import Findings
from ketwork.networks.activations.info import Key, LayerInfo
from ketwork.networks.activations.layout import Layout

FeatureAxis = int | Mapping[str, int] | Callable[[str, nn.Module, Tensor], int] | None


@dataclass(frozen=True)
class KnownAxes:
    """What is known, for a checkpoint: the layout of each output by layer, call and place, or why it has none."""

    layouts: list[tuple[Key, str, Layout]] = field(default_factory=list)
    refused: list[tuple[Key, str, str]] = field(default_factory=list)
    masks: list[tuple[Key, str | None]] = field(default_factory=list)
    passes: int = 0
    notes: list[str] = field(default_factory=list)
    uses_second: bool | None = None


@dataclass
class Axes:
    """The layouts of outputs by key and place, and which mask belongs to each layer.

    `shared` has the layouts of tensors that several modules returned, each at a place of its own in its output.
    `feature_axis` is what the user gave of it; `passes` counts the forward passes of experiments; `uses_second` says
    whether the network is given the second entry of each batch, which could be labels.
    """

    feature_axis: FeatureAxis = None
    layouts: dict[Key, dict[str, Layout | str]] = field(default_factory=dict)
    shared: dict[Key, Layout] = field(default_factory=dict)
    masks: dict[Key, str | None] = field(default_factory=dict)
    passes: int = 0
    notes: list[str] = field(default_factory=list)
    uses_second: bool | None = None

    @classmethod
    def from_layers(cls, layers: Iterable[LayerInfo], feature_axis: FeatureAxis = None) -> Axes:
        """Those that a study of the network knows."""
        axes = cls(feature_axis)
        for layer in layers:
            if not layer.layout.ndim:
                continue
            for name in (layer.name, *layer.aliases):
                axes.layouts.setdefault((name, layer.call), {})[layer.leaf] = layer.layout
                if layer.aliases:
                    axes.shared[name, layer.call] = layer.layout
        return axes

    def given(self, path: str, module: nn.Module, output: Tensor) -> int | None:
        """The axis of features that the user gave for an output, counted from the front."""
        chosen = self.feature_axis
        if isinstance(chosen, Mapping):
            chosen = chosen.get(path)
        elif callable(chosen):
            chosen = chosen(path, module, output)
        if chosen is None:
            return None
        if not -output.ndim <= chosen < output.ndim:
            raise ValueError(
                f"Argument `feature_axis` must be an axis of the output of layer {path!r}, which has shape "
                f"{tuple(output.shape)}, but is {chosen}."
            )
        return chosen % output.ndim

    def of(self, key: Key) -> dict[str, Layout | str] | None:
        """The layouts of one call's outputs; of a new call those of the others, where these agree."""
        if key in self.layouts:
            return self.layouts[key]
        others = [layouts for (path, _), layouts in self.layouts.items() if path == key[0]]
        if others and all(other == others[0] for other in others):
            if key[0] in {path for path, _ in self.masks}:
                self.masks.setdefault(
                    key, next(mask for (path, _), mask in self.masks.items() if path == key[0])
                )
            return others[0]
        return None

    def mask(self, key: Key, names: Iterable[str]) -> str | None:
        """Which of a batch's masks belongs to a layer."""
        names = list(names)
        if key in self.masks:
            return self.masks[key] if self.masks[key] in names else None
        return names[0] if len(names) == 1 else None

    def note(self, sentence: str) -> None:
        """Adds what the record should say, once."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def take(self, findings: Findings) -> None:
        """Adds what an experiment has shown; what was known stays."""
        for key, layouts in findings.layouts.items():
            self.layouts.setdefault(key, layouts)
        for key, name in findings.masks.items():
            self.masks.setdefault(key, name)
        self.passes += findings.passes
        for note in findings.notes:
            self.note(note)

    def stored(self) -> KnownAxes:
        """What is known, for a checkpoint."""
        entries = [(k, path, each) for k, layouts in self.layouts.items() for path, each in layouts.items()]
        return KnownAxes(
            [(k, path, each) for k, path, each in entries if isinstance(each, Layout)],
            [(k, path, each) for k, path, each in entries if isinstance(each, str)],
            list(self.masks.items()),
            self.passes,
            list(self.notes),
            self.uses_second,
        )

    def restore(self, known: KnownAxes) -> None:
        """Takes over what was known."""
        entries: list[tuple[Key, str, Layout | str]] = [*known.layouts, *known.refused]
        for key, path, each in entries:
            self.layouts.setdefault(key, {})[path] = each
        self.masks |= dict(known.masks)
        self.passes, self.notes = known.passes, list(known.notes)
        self.uses_second = known.uses_second


def by_rules(module: nn.Module, output: Tensor, features: int | None) -> Layout | str:
    """The layout of an output of which no experiment is known: samples first, or second where the module says so."""
    shape = tuple(output.shape)
    if not shape:
        return "its output is a single number"
    if len(shape) == 1:
        return Layout(0, None, 1)
    samples = 1 if len(shape) == 3 and getattr(module, "batch_first", True) is False else 0
    axis = features if features is not None else made_axis(module, shape)
    if axis is None and len(shape) < 4:
        axis = len(shape) - 1
    if axis is None or axis == samples:
        return (
            f"nothing says which axis of its output {shape} holds the features. Say which with "
            "`reading=kw.Reading(feature_axis=…)`"
        )
    return Layout(samples, axis, len(shape), features_by="given" if features is not None else "rules")
