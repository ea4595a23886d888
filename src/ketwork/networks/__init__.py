"""Networks as quantum systems: capture, encode and study any trained `torch.nn.Module`."""

from ketwork.networks.capture import POOLED, Activation, capture
from ketwork.networks.encode import decode, encode
from ketwork.networks.readings import Estimate
from ketwork.networks.record import Layer, Study
from ketwork.networks.select import ROOT, SelectorError, select
from ketwork.networks.study import StudyInterrupted, study

__all__ = [
    "POOLED",
    "ROOT",
    "Activation",
    "Estimate",
    "Layer",
    "SelectorError",
    "Study",
    "StudyInterrupted",
    "capture",
    "decode",
    "encode",
    "select",
    "study",
]
