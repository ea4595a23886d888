"""What a reader can do about a record: each finding with its severity, what it means, and the command to copy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ketwork.networks.collapse import CollapseCurve
from ketwork.networks.comparison import Comparison
from ketwork.networks.compression import Compressed
from ketwork.networks.study import FEW_SAMPLES, Study
from ketwork.report import findings
from ketwork.report.commands import Commands
from ketwork.report.views import View

Severity = Literal["act", "look", "note"]
SEVERITIES: dict[Severity, str] = {"act": "Act on it", "look": "Look into it", "note": "Good to know"}

NARROW = 0.5
"""A layer that needs at most this share of its dimensions is worth cutting."""
DEAD = 0.1
"""From this share of dead neurons on they are worth removing."""
ONE_DIRECTION = 0.5
"""A layer of which one direction holds more than this is described by that direction before all."""
KL = 0.01
"""Nats a prediction that the suggested cuts may cost."""

_NAMED = 4  # layers in a command


@dataclass(frozen=True)
class Action:
    """A finding: its severity, what it means in a sentence, what to do about it, and commands that do it."""

    severity: Severity
    title: str
    meaning: str
    remedy: str
    commands: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The severity in words."""
        return SEVERITIES[self.severity]


def of_study(
    study: Study, rows: Sequence[View], comparison: Comparison | None, say: Commands
) -> list[Action]:
    """What follows from a study, the most severe first."""
    parts = (
        _few(rows),
        _decodable(study, rows),
        _dead(rows, say),
        _narrow(rows, say),
        _redundant(
            findings.redundant(comparison, rows), {row.layer.name: row.layer.kind for row in rows}, say
        ),
        _sinks(study, rows, say),
        _one_direction(study, rows, say),
        _detectable(study, say),
    )
    return by_severity(action for part in parts for action in part)


def of_curve(curve: CollapseCurve, say: Commands) -> list[Action]:
    """What follows from a collapse curve: the layers that could be cut, and how."""
    narrow = [each for each in curve.layers if each.smallest.rank <= NARROW * each.d]
    if not narrow:
        return [
            Action(
                "note",
                "No layer is much wider than needed",
                f"Each layer needs more than half of its dimensions for {curve.criterion}.",
                "Cutting ranks gains little here. A larger tolerance, or removing neurons, may.",
            )
        ]
    narrow.sort(key=lambda each: each.smallest.rank / each.d)
    names = [name for each in narrow if (name := _selector(each.label, each.kind))]
    return [
        Action(
            "act",
            f"{_count(len(narrow), 'layer')} of {len(curve.layers)} could be cut to half of the dimensions or fewer",
            f"Projected onto {narrow[0].smallest.rank} of {narrow[0].d} directions, {narrow[0].label} alone keeps "
            f"{curve.criterion}. Cuts of several layers add up, so that all at once may cost more.",
            f"Cut them together and see what that costs: the predictions change by at most {KL} nats.",
            (say("compress", layers=names[:_NAMED], max_kl=KL),) if names else (),
        )
    ]


def of_comparison(comparison: Comparison, say: Commands) -> list[Action]:
    """What follows from comparing the layers of one model with each other; two models have a table of what differs."""
    kinds = {layer.name: layer.kind for layer in comparison.rows}
    return list(_redundant(findings.redundant(comparison), kinds, say))


def of_compressed(result: Compressed) -> list[Action]:
    """What to do with a smaller network."""
    share = result.after.parameters / max(result.before.parameters, 1)
    sure = result.kl <= KL
    return [
        Action(
            "act" if sure else "look",
            f"{share:.0%} of the parameters, "
            + ("nearly the same predictions" if sure else "other predictions in part"),
            f"On samples held back, the predictions change by {result.kl:.3g} nats each, where 0 is not at all.",
            "Measure your own metric on data of your own, then use it in the place of the original."
            if sure
            else "Measure your own metric; if it suffers, keep more, or train the smaller network for a while.",
            ('result.save("small.safetensors")', 'kw.load_compressed("small.safetensors", network)'),
        )
    ]


def by_severity(actions: Iterator[Action]) -> list[Action]:
    """The most severe first, otherwise in the order that they came."""
    return sorted(actions, key=lambda action: list(SEVERITIES).index(action.severity))


def _few(rows: Sequence[View]) -> Iterator[Action]:
    few = [row for row in rows if row.few_samples]
    if few:
        yield Action(
            "look",
            f"Few samples for {_count(len(few), 'layer')}",
            f"{_named(few)} {'has' if len(few) == 1 else 'have'} fewer than {FEW_SAMPLES} independent samples for each "
            "dimension in use, so that entropy and effective rank rest on a large correction.",
            f"Study more samples; about {_rounded(FEW_SAMPLES * max(_needed(row) for row in few))} would do.",
        )


def _decodable(study: Study, rows: Sequence[View]) -> Iterator[Action]:
    labels = findings.labels(study, rows)
    best = None if labels is None else labels.readouts.get("linear_balanced")
    if labels is None or best is None:
        return
    first = min([best, *labels.ties["linear_balanced"]], key=lambda row: row.place)
    chance = 1 / labels.classes
    score = best["linear_balanced"]
    if score.value - 2 * _error(score.stderr) <= chance:
        yield Action(
            "look",
            "No layer tells the labels apart",
            f"The best linear probe, at {best.label}, classifies {best.words('linear_balanced')} correctly, where "
            f"guessing gives {chance:.1%}.",
            "Check that labels and samples belong together; else use more samples, or another network.",
        )
        return
    last = next((row for row in reversed(rows) if row.has("linear_balanced")), best)
    if not findings.tied(last["linear_balanced"], score):
        yield Action(
            "look",
            "Labels are easier to decode before the end",
            f"A linear probe classifies {best.words('linear_balanced')} correctly at {best.label}, and "
            f"{last.words('linear_balanced')} at the last layer, {last.label}.",
            f"As features for these labels, take the activations of {first.label} instead of the last ones.",
        )
    elif first is not last:
        yield Action(
            "note",
            f"Labels can be decoded from {first.label} on",
            f"No later layer is better by more than its error: {first.words('linear_balanced')} there, "
            f"{best.words('linear_balanced')} at the best, {best.label}.",
            f"As features for these labels, {first.label} may do as well as what follows; more samples would tell.",
        )


def _dead(rows: Sequence[View], say: Commands) -> Iterator[Action]:
    dead = findings.dead(rows)
    if not dead:
        return
    worst = dead[0]
    names = [name for row in dead if row["dead"].value >= DEAD and (name := _cut_at(row, rows))]
    yield Action(
        "act" if worst["dead"].value >= DEAD else "note",
        f"Dead neurons in {_count(len(dead), 'layer')}",
        f"{worst.dead_neurons} of {worst.layer.d} neurons of {worst.label} are 0 for every sample: they take part in "
        "no prediction on such data.",
        "Remove them with what feeds them, if the data are like those the network will meet.",
        (say("compress", layers=[*dict.fromkeys(names)][:_NAMED], max_kl=KL),) if names else (),
    )


def _narrow(rows: Sequence[View], say: Commands) -> Iterator[Action]:
    known = [row for row in rows if row.has("rank_kept") and _cut_at(row, rows)]
    # One direction for 99 % is the mean that all samples share, which says nothing of what differs between them.
    narrow = [
        row for row in known if 1 < row["rank_kept"].high <= NARROW * row.layer.d and not row.few_samples
    ]
    if not narrow:
        return
    narrow.sort(key=lambda row: row["rank_kept"].high / row.layer.d)
    layers = [*dict.fromkeys(name for row in narrow if (name := _cut_at(row, rows)))]
    first = narrow[0]
    yield Action(
        "act",
        f"{_count(len(narrow), 'layer')} of {len(rows)} with half of the dimensions unused",
        f"{first.words('rank_kept')} of {first.layer.d} directions carry 99 % of the variance of {first.label}. "
        "Variance is not accuracy: whether the others matter has to be tried.",
        f"See how few the predictions need; then cut, with predictions that change by at most {KL} nats.",
        (
            say("collapse", layers=[row.layer.name for row in narrow[:3]]),
            say("compress", layers=layers[:_NAMED], max_kl=KL),
        ),
    )


def _redundant(near: findings.Redundant | None, kinds: Mapping[str, str], say: Commands) -> Iterator[Action]:
    if near is None or not near.alike:
        return
    blocks = [name for _, name, _ in near.repeated]
    first, second, value = (near.repeated or near.alike)[0]
    plain = len(near.alike) - len(blocks)
    some = ""
    if plain:
        is_one = "is a layer and its" if plain == 1 else "are layers and their"
        some = (
            f" {plain} of the pairs {is_one} activation function, pooling or read-out, alike by construction."
        )
    more = ", ".join(f"{b} and {a} ({each:.3f})" for a, b, each in near.repeated[1:_NAMED])
    some = (f" Likewise {more}." if more else "") + some
    yield Action(
        "look" if blocks else "note",
        f"{_count(len(near.alike), 'layer')} repeat{'s' if len(near.alike) == 1 else ''} the one before",
        f"Up to rotation and scale, {second} holds nearly what {first} does (CKA {value:.3f}).{some}",
        "A layer that changes little can often be made much thinner, or skipped. Try it, and look at what it costs."
        if blocks
        else "Nothing: none of these layers could be skipped.",
        (
            say(
                "compress",
                layers=[_selector(name, kinds.get(name, "")) for name in blocks[:_NAMED]],
                max_kl=KL,
            ),
        )
        if blocks
        else (),
    )


def _sinks(study: Study, rows: Sequence[View], say: Commands) -> Iterator[Action]:
    sinks = findings.sinks(study, rows)
    if sinks is not None and study.settings.get("positions") in (None, "all"):
        yield Action(
            "look",
            f"Sinks in {_count(sinks.layers, 'layer')}",
            f"A few positions with very large activations hold {sinks.most.words(sinks.measure)} of the state of "
            f"{sinks.most.label}: its numbers describe these positions first.",
            "Study the layers without them, and compare.",
            (say("study", positions="no-sinks", out="without-sinks.html"),),
        )


def _one_direction(study: Study, rows: Sequence[View], say: Commands) -> Iterator[Action]:
    narrow = [row for row in rows if row["top_weight"].low > ONE_DIRECTION]
    if narrow and not study.settings.get("center"):
        most = max(narrow, key=lambda row: row["top_weight"].low)
        yield Action(
            "note",
            f"One direction holds most of {_count(len(narrow), 'layer')}",
            f"In {most.label} it holds {most.words('top_weight')} of the variance, mostly what all samples "
            "share, their mean. It keeps effective rank low however different the samples are.",
            "Study the differences alone, with the mean subtracted.",
            (say("study", center=True, out="centered.html"),),
        )


def _detectable(study: Study, say: Commands) -> Iterator[Action]:
    by_sample = study.settings.get("task") in ("classes", "values")
    counts = [len(layer.labels.held_out) for layer in study if layer.labels is not None]
    if by_sample and counts and study.states is None and not study.settings.get("positions"):
        yield Action(
            "note",
            "New inputs can be compared with these",
            f"The study held out {max(counts):,} samples, beside which a new input gets a p-value: how few of them "
            "are as unlike the data studied as it is.",
            "Score what the network meets in use; inputs unlike these data are alarms.",
            say.detect("NEW"),
        )


def _cut_at(row: View, rows: Sequence[View]) -> str:
    """What `compress` knows the weights by that make a layer's output: its own or those before it; "" for none."""
    for each in reversed(rows[: row.place + 1]):
        if each.layer.d != row.layer.d or (row.part is None) != (each.part is None):
            return ""
        if name := _selector(each.layer.name, each.layer.kind):
            return name
    return ""


def _selector(name: str, kind: str) -> str:
    """The layer itself, or all that is inside it; "" where its class has no matrix of weights."""
    if kind in findings.WEIGHTED:
        return name
    return f"{name}.*" if findings.has_weights(kind) else ""


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' if n != 1 else ''}"


def _named(rows: Sequence[View], most: int = 3) -> str:
    more = f" and {len(rows) - most} more" if len(rows) > most else ""
    return ", ".join(row.label for row in rows[:most]) + more


def _needed(row: View) -> float:
    return row["effective_rank"].plain


def _rounded(n: float) -> str:
    """A number of samples with one digit, rounded up."""
    unit = 10 ** max(0, math.floor(math.log10(max(n, 1))))
    return f"{math.ceil(n / unit) * unit:,}"


def _error(stderr: float) -> float:
    return stderr if math.isfinite(stderr) else 0.0
