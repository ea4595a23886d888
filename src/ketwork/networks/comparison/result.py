"""What a comparison found: labelled matrices of layers against layers, as frames, as a long table, as a picture."""

from __future__ import annotations

import html
import math
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from ketwork.networks.measures.overlaps import overlaps
from ketwork.networks.measures.similarity import MEASURES, likeness
from ketwork.networks.moments.pair_moments import PairMoments
from ketwork.records import pages, storage
from ketwork.records.checked import Count, Malformed, check, check_tensors

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SCHEMA = 1
"""The version of the file format; files of a newer one are refused."""

SIDES = ("model_a", "model_b")
"""What the two models are called."""

DISTANCES = {"cka_distance": "cka", "bures_distance": "bures"}
"""Each angular distance and the measure that it is the angle of."""

DEFINITIONS: dict[str, str] = {
    "cka": "debiased linear CKA: HSIC₁(X,Y)/√(HSIC₁(X,X) HSIC₁(Y,Y)), 0 on average for unrelated layers, below 0 "
    "by chance; features centred",
    "cka_biased": "linear CKA ‖XᵀY‖²/(‖XᵀX‖ ‖YᵀY‖) of centred features, which few samples inflate",
    "bures": "normalised Bures similarity, the root fidelity ‖XᵀY‖_*/√(Tr XᵀX Tr YᵀY) of the sample-side states; "
    "features centred unless center=False",
    "bures_null": "the root fidelity to expect of layers with the same spectra and nothing in common",
    "r2": "share of the column's layer that the best linear map (with intercept) of the row's layer explains, "
    "adjusted for the fitted parameters (Ezekiel 1930): 0 on average for unrelated layers; NaN where the fit leaves "
    "less than a tenth of the samples over",
    "r2_reverse": "the same with the roles exchanged",
    "r2_fit": "the same share, not adjusted: 1 whenever the row's layer has N − 1 dimensions",
    "r2_fit_reverse": "the same with the roles exchanged",
    "cka_distance": "arccos of cka: an angle between 0 (equal up to rotation and scale) and π/2 (unrelated) [rad]",
    "bures_distance": "arccos of bures, the Bures angle [rad]",
}

_FEW = 10
_LAYER = {"name": str, "kind": str, "d": Count, "held": Count, "aliases": [str]}
_HEADER = {
    "rows": [_LAYER],
    "columns": [_LAYER],
    "measures": [tuple({*DEFINITIONS} - {*DISTANCES})],
    "n": Count,
    "settings": {"model": str, "other": str},
    "skipped": {str: str},
    "itself": bool,
    "complete": bool,
    "error": (str, None),
}
_SHOWN = ("bures", "bures_null", "r2", "r2_reverse")
_PRINTED: dict[str, Any] = {"float_format": "{:.3f}".format, "na_rep": "–"}


@dataclass(frozen=True)
class ComparedLayer:
    """One layer of a comparison: its label, kind, features d, and the width it was held in (less if projected)."""

    name: str
    kind: str
    d: int
    held: int
    aliases: tuple[str, ...] = ()

    @classmethod
    def at(cls, place: tuple[str, int], aliases: tuple[str, ...], kind: str, d: int) -> ComparedLayer:
        """The layer of that name and call; later calls of a module are told apart by their number."""
        name, call = place
        return cls(name if call <= 0 else f"{name}#{call}", kind, d, d, aliases)

    def header(self) -> dict[str, Any]:
        """The layer as plain values."""
        return {name: getattr(self, name) for name in _LAYER} | {"aliases": list(self.aliases)}

    @classmethod
    def from_header(cls, header: dict[str, Any]) -> ComparedLayer:
        """The layer that `header` described."""
        check(header, _LAYER, "layer")
        return cls(**{name: header[name] for name in _LAYER} | {"aliases": tuple(header["aliases"])})


@dataclass(frozen=True, eq=False)
class Comparison:
    """How the layers of a model compare with those of another (`columns`), or with each other.

    `cka`, `bures`, `r2` … are frames, rows × columns; `definitions` says what each is. `n` counts what was
    compared: samples, or positions of samples with `positions=True`. `skipped` names modules left out, each
    with its reason. `complete` is False where the pass ended early; `error` then says why.
    `matrices` has every measure as a float64 tensor, `errors` by how much projecting wide layers may have
    changed it (empty where nothing was projected).
    """

    rows: tuple[ComparedLayer, ...]
    columns: tuple[ComparedLayer, ...]
    matrices: dict[str, Tensor]
    n: int
    settings: dict[str, Any]
    skipped: dict[str, str]
    errors: dict[str, Tensor] = field(default_factory=dict)
    itself: bool = False
    complete: bool = True
    error: Exception | str | None = None

    @classmethod
    def of(
        cls,
        pairs: PairMoments,
        named: Mapping[Hashable, ComparedLayer],
        settings: dict[str, Any],
        skipped: dict[str, str],
        *,
        measures: Collection[str] = tuple(MEASURES),
        center: bool = True,
    ) -> Comparison:
        """The comparison that the streamed moments of `PairMoments` hold; `named` has the layer of each key.

        `measures` is which of `MEASURES` to compute, `center` for `bures` alone. Layers that missed
        a batch, or put out the same for every sample, go to `skipped`.
        """
        found = overlaps(pairs)
        matrices = likeness(found, measures, center=center)
        errors: dict[str, Tensor] = {}
        if pairs.half is not None:
            halved = likeness(overlaps(pairs.half), measures, center=center)
            errors = {name: _uncertain(matrix, halved[name]) for name, matrix in matrices.items()}
        skipped = dict(skipped)
        kept: tuple[list[int], list[int]] = ([], [])
        sides: tuple[list[ComparedLayer], list[ComparedLayer]] = ([], [])
        second = len(pairs.keys) if pairs.split is None else pairs.split
        for i, (key, held) in enumerate(zip(pairs.keys, pairs.dims, strict=True)):
            layer, side = replace(named[key], held=held), int(i >= second)
            place = layer.name if pairs.split is None else f"{SIDES[side]}: {layer.name}"
            if key in pairs.incomplete:
                skipped[place] = "it ran in some batches only"
            elif found.constant[i]:
                skipped[place] = "it puts out the same for every sample"
            else:
                kept[side].append(i - side * second)
                sides[side].append(layer)
        itself = pairs.split is None
        rows, columns = kept[0], kept[0] if itself else kept[1]
        chosen = {name: matrix[rows][:, columns] for name, matrix in matrices.items()}
        uncertain = {name: matrix[rows][:, columns] for name, matrix in errors.items()}
        layers, others = tuple(sides[0]), tuple(sides[0] if itself else sides[1])
        return cls(layers, others, chosen, pairs.n, settings, skipped, uncertain, itself)

    @property
    def cka(self) -> pd.DataFrame:
        """Debiased linear CKA."""
        return self.frame("cka")

    @property
    def cka_biased(self) -> pd.DataFrame:
        """Linear CKA as it is usually computed, which few samples inflate."""
        return self.frame("cka_biased")

    @property
    def cka_distance(self) -> pd.DataFrame:
        """The angle whose cosine is the debiased CKA, in radians."""
        return self.frame("cka_distance")

    @property
    def bures(self) -> pd.DataFrame:
        """Normalised Bures similarity: the root fidelity of the sample-side states."""
        return self.frame("bures")

    @property
    def bures_null(self) -> pd.DataFrame:
        """The Bures similarity to expect of layers with the same spectra and nothing in common."""
        return self.frame("bures_null")

    @property
    def bures_distance(self) -> pd.DataFrame:
        """The Bures angle, in radians."""
        return self.frame("bures_distance")

    @property
    def r2(self) -> pd.DataFrame:
        """Share of the column's layer that a linear map of the row's layer explains, adjusted."""
        return self.frame("r2")

    @property
    def r2_reverse(self) -> pd.DataFrame:
        """Share of the row's layer that a linear map of the column's layer explains, adjusted."""
        return self.frame("r2_reverse")

    @property
    def measures(self) -> tuple[str, ...]:
        """The names of the measures that were computed, distances included."""
        return (*self.matrices, *(name for name, of in DISTANCES.items() if of in self.matrices))

    @property
    def definitions(self) -> dict[str, str]:
        """What each measure means."""
        return DEFINITIONS

    @property
    def warnings(self) -> list[str]:
        """What a reader of the numbers should know."""
        found = []
        if not self.complete:
            found.append(f"The pass ended early, after {self.n} {self._unit}: {self.error}")
        layers = dict.fromkeys((*self.rows, *self.columns))
        few = list(dict.fromkeys(layer.name for layer in layers if self.n < _FEW * layer.held))
        if few:
            found.append(
                f"Fewer than {_FEW} {self._unit} per dimension in {_listed(few)}: read bures beside bures_null; r2 is "
                "uncertain, and NaN where samples do not outnumber dimensions. CKA is debiased."
            )
        projected = list(dict.fromkeys(layer.name for layer in layers if layer.held < layer.d))
        if projected:
            widest = max(layer.held for layer in layers if layer.held < layer.d)
            first = next(iter(self.matrices))
            largest = float(self.errors[first].nan_to_num().max())
            found.append(
                f"Projected at random to {widest} dimensions to stay within memory: {_listed(projected)}. This may "
                f"have changed {first} by up to {largest:.2g}, see `errors`. Give more `memory=` for exact numbers."
            )
        return found

    def frame(self, measure: str) -> pd.DataFrame:
        """One measure as a frame with the layers' names as labels; see `definitions` for the names."""
        return pd.DataFrame(
            self._matrix(measure).numpy(),
            index=pd.Index([layer.name for layer in self.rows], name="layer"),
            columns=pd.Index([layer.name for layer in self.columns], name="other"),
        )

    def table(self) -> pd.DataFrame:
        """One row a pair of layers: names, widths, N, N/d of the wider one, and every measure.

        Compared with itself, each pair comes once, and no layer with itself. Columns `…_error` follow where
        layers were projected.
        """
        found = []
        every = {name: self._matrix(name) for name in self.measures}
        every |= {f"{name}_error": matrix for name, matrix in self.errors.items()}
        for i, layer in enumerate(self.rows):
            for j, other in enumerate(self.columns):
                if self.itself and j <= i:
                    continue
                row = {
                    "layer": layer.name,
                    "other": other.name,
                    "d": layer.d,
                    "d_other": other.d,
                    "N": self.n,
                    "n_per_d": self.n / max(layer.d, other.d),
                }
                found.append(row | {name: float(matrix[i, j]) for name, matrix in every.items()})
        return pd.DataFrame(found, columns=["layer", "other", "d", "d_other", "N", "n_per_d", *every])

    def best_match(self, measure: str | None = None) -> pd.DataFrame:
        """For each row's layer the column's layer that is most like it (never itself), and how much.

        None takes the first of `measures`, which is `cka` where it was computed. `mutual` says whether the match is
        the best in the other direction too. A distance is best small.
        """
        measure = measure or self.measures[0]
        sign = -1.0 if measure in DISTANCES else 1.0
        values = sign * self._matrix(measure)
        values = torch.where(values.isnan(), -math.inf, values)
        if self.itself:
            values.fill_diagonal_(-math.inf)
        found = []
        for i, layer in enumerate(self.rows):
            j = int(values[i].argmax())
            if values[i, j] == -math.inf:
                continue
            mutual = int(values[:, j].argmax()) == i
            found.append(
                {
                    "layer": layer.name,
                    "match": self.columns[j].name,
                    measure: sign * float(values[i, j]),
                    "mutual": mutual,
                }
            )
        return pd.DataFrame(found, columns=["layer", "match", measure, "mutual"]).set_index("layer")

    def plot(self, ax: Axes | None = None, measure: str | None = None) -> Axes:
        """A picture of one measure, rows from the top; returns the matplotlib axes it was drawn in.

        Raises:
            ImportError: matplotlib is missing.
        """
        measure = measure or self.measures[0]
        matrix = self._matrix(measure)
        if ax is None:
            try:
                from matplotlib import pyplot
            except ImportError as error:
                raise ImportError(
                    "Plots need matplotlib. Install it with `pip install 'ketwork[plot]'`."
                ) from error
            _, ax = pyplot.subplots(layout="constrained")
        top = math.pi / 2 if measure in DISTANCES else 1.0
        image = ax.imshow(matrix.numpy(), vmin=0, vmax=top, cmap="viridis", interpolation="nearest")
        for axis, layers in ((ax.yaxis, self.rows), (ax.xaxis, self.columns)):
            step = -(-len(layers) // 40)  # more names than this run into each other
            axis.set_ticks(range(0, len(layers), step), [layer.name for layer in layers[::step]], fontsize=7)
        ax.tick_params(axis="x", rotation=90)
        ax.set_ylabel(self.settings["model"])
        ax.set_xlabel(self.settings["other"])
        ax.set_title(f"{measure}, N = {self.n} {self._unit}")
        if ax.figure is not None:
            ax.figure.colorbar(image, ax=ax)
        return ax

    def report(self, path: str | Path) -> Path:
        """Writes the comparison as one HTML file that needs no network, and returns its path.

        It shows every pair of layers by any measure, each layer's best match, and where the two models differ
        or which neighbours of one model are alike.

        Raises:
            ImportError: the extra `report` is missing.
            OSError: the file cannot be written.
        """
        return pages.write(self, path)

    def save(self, path: str | Path) -> None:
        """Writes the comparison to one safetensors file; replaces the file in one step."""
        storage.write(Path(path), "comparison", SCHEMA, self.tensors(), self.header())

    @classmethod
    def load(cls, path: str | Path) -> Comparison:
        """Reads a comparison that `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: not a comparison, truncated, or written by a newer ketwork.
        """
        tensors, header = storage.read(Path(path), "comparison", SCHEMA)
        try:
            return cls.from_parts(tensors, header)
        except Malformed as error:
            raise ValueError(
                f"Argument `path` must be a saved comparison, but {str(path)!r} lacks a part of one "
                f"({error}). Save the comparison again."
            ) from error

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of a file; `header` has the rest."""
        errors = {f"error.{name}": matrix for name, matrix in self.errors.items()}
        return self.matrices | errors

    def header(self) -> dict[str, Any]:
        """All of the comparison but its tensors, for a file."""
        failed = isinstance(self.error, Exception)
        return {
            "rows": [layer.header() for layer in self.rows],
            "columns": [layer.header() for layer in self.columns],
            "measures": list(self.matrices),
            "n": self.n,
            "settings": self.settings,
            "skipped": self.skipped,
            "itself": self.itself,
            "complete": self.complete,
            "error": f"{type(self.error).__name__}: {self.error}" if failed else self.error,
        }

    @classmethod
    def from_parts(cls, tensors: dict[str, Tensor], header: dict[str, Any]) -> Comparison:
        """The comparison that `tensors` and `header` described."""
        check(header, _HEADER, "comparison")
        check(header["settings"].get("source", {}), {str: dict}, "source")
        rows, columns = (tuple(map(ComparedLayer.from_header, header[side])) for side in ("rows", "columns"))
        names = header["measures"]
        sizes = {"rows": len(rows), "columns": len(columns)}
        check_tensors(tensors, sizes, **dict.fromkeys(names, "value rows columns"))
        errors = storage.under("error.", tensors)
        projected = any(layer.held < layer.d for layer in (*rows, *columns))
        uncertain = "value rows columns" if projected else "value rows columns?"
        check_tensors(errors, sizes, **dict.fromkeys(names, uncertain))
        if not names or (header["itself"] and rows != columns):
            raise Malformed(
                "a comparison must have measures, and that of a model with itself its layers twice"
            )
        return cls(
            rows,
            columns,
            {name: tensors[name] for name in names},
            header["n"],
            dict(header["settings"]),
            dict(header["skipped"]),
            {name: errors[name] for name in names if name in errors},
            header["itself"],
            header["complete"],
            header["error"],
        )

    def __repr__(self) -> str:
        head, best = self._brief()
        notes = "".join(f"\n! {warning}" for warning in self.warnings)
        if best.empty:
            return f"{head}\nno pair of layers has a value{notes}"
        return f"{head}\n{best.to_string(index=False, **_PRINTED)}{notes}"

    def _repr_html_(self) -> str:
        head, best = self._brief()
        notes = "".join(f"<p>! {html.escape(warning)}</p>" for warning in self.warnings)
        shown = (
            "<p>no pair of layers has a value</p>"
            if best.empty
            else best.to_html(index=False, border=0, **_PRINTED)
        )
        return f"<p>{html.escape(head).replace(chr(10), '<br>')}</p>{shown}{notes}"

    def _brief(self) -> tuple[str, pd.DataFrame]:
        """What is compared, in words, and each layer's best match with some measures of the two."""
        with_whom = "with itself" if self.itself else f"with {self.settings['other']}"
        head = (
            f"Comparison of {self.settings['model']} {with_whom}: {len(self.rows)} × {len(self.columns)} layers, "
            f"N = {self.n} {self._unit}\nEach layer's best match by {self.measures[0]}:"
        )
        best = self.best_match().reset_index()
        places = {layer.name: i for i, layer in enumerate(self.rows)}
        others = {layer.name: j for j, layer in enumerate(self.columns)}
        at = [(places[a], others[b]) for a, b in zip(best["layer"], best["match"], strict=True)]
        for name in [n for n in _SHOWN if n in self.matrices and n not in best]:
            best[name] = [float(self.matrices[name][place]) for place in at]
        return head, best.drop(columns="mutual")

    @property
    def _unit(self) -> str:
        return "positions" if self.settings.get("unit") == "positions" else "samples"

    def _matrix(self, measure: str) -> Tensor:
        if measure not in self.measures:
            remedy = " Ask for it with `measures=` when comparing." if measure in DEFINITIONS else ""
            raise ValueError(
                f"Argument `measure` must be one of {', '.join(self.measures)}, but is {measure!r}.{remedy}"
            )
        if measure in DISTANCES:
            return self.matrices[DISTANCES[measure]].clamp(-1, 1).arccos()
        return self.matrices[measure]


def _uncertain(values: Tensor, halved: Tensor) -> Tensor:
    """How far a projection may have moved values, from those of a projection to half the width.

    One pair's change may be small by luck, so the changes of all pairs are pooled, in units of 1 − v² as the
    errors of correlations go; equal layers, which stay equal, have no error.
    """
    change, unit = (values - halved).abs(), (1 - values.square()).clamp(min=0)
    pooled = torch.where(unit > 1e-6, (change / unit).square(), torch.nan).nanmean().sqrt().nan_to_num()
    return torch.maximum(change, pooled * unit)


def _listed(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
