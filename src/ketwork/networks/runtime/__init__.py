"""How a pass runs: the loop, several processes, checkpoints, the plan of its memory, random keys, progress.

May import `measures`, `moments`, `activations`, `quantum`, `records`. Others take `stream`, the one loop over data.

- The loop: `streaming`, `progress`, `bad_values` (NaN), `keys` (random keys of samples)
- `memory`: the plan, which layer gets an exact moment or a sketch; `forecast`: its seconds
- `checkpoints`: written, read, and what must agree for a run to be resumed; `fingerprints` of network and data
- `background`: long work that Ctrl-C can end; `distributed`: several processes
"""

from ketwork.networks.runtime.background import GRACE, Background, give_back, interruptible, left_behind
from ketwork.networks.runtime.bad_values import Bad, BadValues
from ketwork.networks.runtime.checkpoints import CheckpointError, Checkpoints, open_checkpoints
from ketwork.networks.runtime.distributed import TIMEOUT, Distributed, ProcessError, Processes, join
from ketwork.networks.runtime.fingerprints import of_network
from ketwork.networks.runtime.forecast import with_seconds
from ketwork.networks.runtime.keys import key_stream
from ketwork.networks.runtime.memory import (
    Plan,
    Share,
    Width,
    parse_bytes,
    plan_memory,
    plan_without_limit,
)
from ketwork.networks.runtime.progress import LAYERS, PAIRS, Progress, Stage, show_progress, show_stage
from ketwork.networks.runtime.streaming import (
    Ending,
    Interrupted,
    PartialError,
    error_words,
    stream,
    with_notes,
)

__all__ = [
    "GRACE",
    "LAYERS",
    "PAIRS",
    "TIMEOUT",
    "Background",
    "Bad",
    "BadValues",
    "CheckpointError",
    "Checkpoints",
    "Distributed",
    "Ending",
    "Interrupted",
    "PartialError",
    "Plan",
    "ProcessError",
    "Processes",
    "Progress",
    "Share",
    "Stage",
    "Width",
    "error_words",
    "give_back",
    "interruptible",
    "join",
    "key_stream",
    "left_behind",
    "of_network",
    "open_checkpoints",
    "parse_bytes",
    "plan_memory",
    "plan_without_limit",
    "show_progress",
    "show_stage",
    "stream",
    "with_notes",
    "with_seconds",
]
