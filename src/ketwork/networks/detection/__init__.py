"""Detection: how unlike the data that a network was studied on an input is, from the study's moments alone.

May import `study` and everything below it. Others take `Detector`, made by `Study.detector`.

- Fitting: `shrinkage` (regularization from the spectrum), `spaces` and `references` (what a layer is compared with),
  `fitting`, `unseen_classes` (which layers tell classes that they have not seen)
- Scoring: `stacks` (layers of one shape together), `scoring` (terms inside the hooks), `weighing` (one score,
  p-values), `passing`, `watching`, `frames`
- `making` and `detector`: the result
"""

from ketwork.networks.detection.detector import DetectionError, DetectionInterrupted, Detector
from ketwork.networks.detection.making import BOTH, COMBINED, FEWEST, make_detector
from ketwork.networks.detection.references import MEAN, WORST
from ketwork.networks.detection.stacks import METHODS
from ketwork.networks.detection.watching import Watch

__all__ = [
    "BOTH",
    "COMBINED",
    "FEWEST",
    "MEAN",
    "METHODS",
    "WORST",
    "DetectionError",
    "DetectionInterrupted",
    "Detector",
    "Watch",
    "make_detector",
]
