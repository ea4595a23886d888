"""Studies of version 0.1, brought to today's form."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ketwork.networks.comparison import upgraded_comparison
from ketwork.networks.moments import Entanglements
from ketwork.records import pack

Header = dict[str, Any]
Tensors = dict[str, Tensor]


def upgraded(schema: int, header: Header, tensors: Tensors) -> tuple[Header, Tensors]:
    """The header and tensors of schema 1 in those of schema 2, where a study is what was gathered and its numbers."""
    task = header["settings"].get("task")
    names: list[Any] = []
    rows, layers = [], []
    for i, old in enumerate(header["layers"]):
        rows.append(_accumulator(old, f"{i}.", tensors))
        layers.append(
            {
                "normalize": old["normalize"],
                "center": old["center"],
                "estimates": old["estimates"] | (old["knowledge"]["estimates"] if old["knowledge"] else {}),
                "decoding": _decoding(old["knowledge"], f"{i}.knowledge.", tensors),
            }
        )
        names = names or (old["knowledge"]["names"] if old["knowledge"] else [])
    settings = dict(header["settings"])
    settings["max_samples"] = settings.pop("samples", None)
    error = header["error"] if header["complete"] or header["error"] else "it ended early"
    gathered = {
        "normalize": settings.get("normalize", "state"),
        "layers": rows,
        "labels": {"task": task, "names": names, "notes": []},
        "pairs": _pairs(header["pairs"], "pairs.", tensors),
        "samples": header["samples"],
        "batches": int(header["samples"] > 0),
        "position": header["samples"],
        "plan": _plan(header["plan"]),
        "notes": header["notes"],
        "skipped": header["skipped"],
        "streams": header["streams"],
    }
    comparison = header["comparison"]
    if comparison is not None:
        within = {
            name.removeprefix("comparison."): t
            for name, t in tensors.items()
            if name.startswith("comparison.")
        }
        comparison, _ = upgraded_comparison(1, comparison, within)
        for part in ("matrices", "errors"):
            comparison[part] = {name: f"comparison.{place}" for name, place in comparison[part].items()}
    return {
        "gathered": gathered,
        "layers": layers,
        "settings": settings,
        "skipped": header["skipped"],
        "error": error,
        "comparison": comparison,
    }, tensors


def _accumulator(old: Header, place: str, tensors: Tensors) -> Header:
    statistics = old["statistics"]
    info = {name: old[name] for name in ("name", "call", "kind", "leaf", "aliases")}
    info["layout"] = {"features": old["axis"], "ndim": 0}
    info["positions"] = f"{place}reservoir.grams" in tensors
    known = old["knowledge"]
    kept = _named(f"{place}reservoir.", tensors)
    return {
        "info": info,
        **{name: statistics[name] for name in ("samples", "zeros", "dropped", "norms")},
        "moment": _moment(statistics, f"{place}moment.", tensors),
        "reservoir": {"most": statistics["reservoir"]} | kept,
        "entanglements": _entanglements(kept, statistics["d"], f"{place}entanglements.", tensors),
        "labelled": None if known is None else _labelled(known["statistics"], f"{place}knowledge.", tensors),
    }


def _entanglements(kept: dict[str, str], d: int, place: str, tensors: Tensors) -> Header | None:
    """The entropies of what were Gram matrices then; None where these lack positions, or there are none."""
    if "grams" not in kept:
        return None
    keys, counts, grams, sides = (tensors[kept[name]] for name in ("keys", "counts", "grams", "sides"))
    entropies = Entanglements.from_grams(keys, counts, grams, sides, d)
    if entropies is None:
        return None
    header, made = pack(entropies)
    tensors |= {f"{place}{name}": tensor for name, tensor in made.items()}
    return header | {name: f"{place}{name}" for name in made}


def _moment(statistics: Header, place: str, tensors: Tensors) -> Header:
    parts = _named(place, tensors)
    sketch = None
    if "sketch" in parts:
        rank, slack, lost = tensors[parts.pop("certificate")].tolist()
        sketch = {"rank": int(rank), "slack": slack, "lost": lost, "rows": parts.pop("sketch")}
    return parts | {
        "d": statistics["d"],
        "n": statistics["kets"],
        "weight": statistics["weight"],
        "limit": statistics["limit"],
        "sketch": sketch,
    }


def _labelled(old: Header, place: str, tensors: Tensors) -> Header:
    parts = {part: _named(f"{place}{part}.", tensors) for part in ("held", "checks", "waiting")}
    sums: Header = {"moments": {"dense": None, "total": None} | _named(f"{place}sums.", tensors)}
    sums |= {name: f"{place}{name}" for name in ("cross", "level") if f"{place}{name}" in tensors}
    return {
        "held": parts["held"],
        "checks": parts["checks"],
        "sums": sums,
        "complex": old["complex"],
        "waiting": [parts["waiting"]] if parts["waiting"] else [],
        "limits": old["room"],
    }


def _decoding(known: Header | None, place: str, tensors: Tensors) -> Header | None:
    if known is None:
        return None
    confusion = {kind: f"{place}confusion.{kind}" for kind in known["confusion"]}
    return {"confusion": confusion, "strengths": known["strengths"], "discarded": known["discarded"]}


def _pairs(old: Header | None, place: str, tensors: Tensors) -> Header | None:
    if old is None:
        return None
    keys = old.get("keys")
    return _pairs_of(old, keys, place, tensors)


def _pairs_of(old: Header, keys: Any, place: str, tensors: Tensors) -> Header:
    count = len(old["widths"])
    rows = [f"{place}rows.{i}" for i in range(count)]
    cross: Header | None = None
    if old["summed"] is not None:
        dims = [old["sketches"].get(str(i), d) for i, d in enumerate(old["widths"])]
        cross = {"dims": dims, "split": old["split"], "n": old["summed"]}
        cross |= {
            name: f"{place}cross.{name}" for name in ("sums", "lengths", "lengths_of_pairs", "weighted")
        }
        cross |= {
            name: [f"{place}cross.{name}.{i}" for i in range(count)] for name in ("origin", "own", "right")
        }
    half = old["half"]
    plain = ("memory", "seed", "n", "split", "incomplete", "widths")
    return {name: old[name] for name in plain} | {
        "keys": keys,
        "projections": old["sketches"],
        "rows": rows if count and rows[0] in tensors else [],
        "cross": cross,
        "half": None if half is None else _pairs_of(half, keys, f"{place}half.", tensors),
    }


def _plan(old: Header | None) -> Header | None:
    if old is None:
        return None
    return old | {"shares": [share | {"limits": share["room"]} for share in old["shares"]]}


def _named(place: str, tensors: Tensors) -> dict[str, str]:
    """The tensors that stand at a place, by the rest of their names."""
    return {name.removeprefix(place): name for name in tensors if name.startswith(place)}
