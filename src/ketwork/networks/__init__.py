"""Networks as quantum systems: capture, encode, study and compare any trained `torch.nn.Module`."""

from ketwork.networks.budget import Plan, Share
from ketwork.networks.capture import POOLED, Activation, capture
from ketwork.networks.checkpoints import EVERY, CheckpointError
from ketwork.networks.collapse import Collapsed, collapse
from ketwork.networks.collapse_curve import collapse_curve
from ketwork.networks.compare import compare
from ketwork.networks.comparison import ComparedLayer, Comparison
from ketwork.networks.compression import Compressed, compress, load_compressed
from ketwork.networks.curves import CollapseCurve, CurvePoint, LayerCurve
from ketwork.networks.encode import decode, encode
from ketwork.networks.knowledge import Knowledge
from ketwork.networks.layer import Layer
from ketwork.networks.outcomes import Positions
from ketwork.networks.pairs import PairMoments
from ketwork.networks.processes import ProcessError
from ketwork.networks.readings import Estimate
from ketwork.networks.record import Study
from ketwork.networks.select import ROOT, SelectorError, select
from ketwork.networks.study import StudyInterrupted, study

__all__ = [
    "EVERY",
    "POOLED",
    "ROOT",
    "Activation",
    "CheckpointError",
    "CollapseCurve",
    "Collapsed",
    "ComparedLayer",
    "Comparison",
    "Compressed",
    "CurvePoint",
    "Estimate",
    "Knowledge",
    "Layer",
    "LayerCurve",
    "PairMoments",
    "Plan",
    "Positions",
    "ProcessError",
    "SelectorError",
    "Share",
    "Study",
    "StudyInterrupted",
    "capture",
    "collapse",
    "collapse_curve",
    "compare",
    "compress",
    "decode",
    "encode",
    "load_compressed",
    "select",
    "study",
]
