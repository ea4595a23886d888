"""`study`: one pass over data (or over activations in files) that gives every layer's state.

May import `comparison` and everything below it. Others take `Study`, the record of a pass.

- The pass: `run` (`study`), `stored_run` (`study_activations`), `loop` and `gathering` (a batch), `accumulator`; beside
  the vectors `extras`: `attention` (patterns of heads), `lens` (logit lens), `expert_load`; `arguments`, `options`
- Its end: `ending`, `numbers` (computed in the background, in steps that can be stopped), `warnings`
- The record: `result` (`Study`), `layer`, `sinks` and `tables` (as frames), `adding`
- Its file: `stored`, `small` (the leading states alone), `upgrade` (of version 0.1)
"""

from ketwork.networks.study.accumulator import StudyAccumulator
from ketwork.networks.study.gathering import Gathering
from ketwork.networks.study.layer import FEW_SAMPLES, RANK_SHARE, Layer
from ketwork.networks.study.loop import Loop
from ketwork.networks.study.result import Study
from ketwork.networks.study.run import StudyError, StudyInterrupted, study
from ketwork.networks.study.stored_run import study_activations

__all__ = [
    "FEW_SAMPLES",
    "RANK_SHARE",
    "Gathering",
    "Layer",
    "Loop",
    "Study",
    "StudyAccumulator",
    "StudyError",
    "StudyInterrupted",
    "study",
    "study_activations",
]
