"""Networks as quantum systems: capture, encode, study and compare any trained `torch.nn.Module`."""

from ketwork.networks.capture import POOLED, Activation, capture
from ketwork.networks.compare import compare
from ketwork.networks.comparison import ComparedLayer, Comparison
from ketwork.networks.encode import decode, encode
from ketwork.networks.knowledge import Knowledge
from ketwork.networks.pairs import PairMoments
from ketwork.networks.readings import Estimate
from ketwork.networks.record import Layer, Study
from ketwork.networks.select import ROOT, SelectorError, select
from ketwork.networks.study import StudyInterrupted, study

__all__ = [
    "POOLED",
    "ROOT",
    "Activation",
    "ComparedLayer",
    "Comparison",
    "Estimate",
    "Knowledge",
    "Layer",
    "PairMoments",
    "SelectorError",
    "Study",
    "StudyInterrupted",
    "capture",
    "compare",
    "decode",
    "encode",
    "select",
    "study",
]
