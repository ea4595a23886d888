"""Files written in one step, typed records whose fields are declared once, and signals. Knows no network.

May import `quantum`. Others take `pack`, `unpack`, `read` and `write` of records.
"""

from ketwork.records.checkpoint import Checkpoint
from ketwork.records.files import irregular, replacing, undirected, visible, writable, write_text
from ketwork.records.forms import Form, Malformed, check_codes, check_source, check_tensors
from ketwork.records.presenting import Presented, presents
from ketwork.records.record import Count, Kinds, Unknown, pack, read, unpack, write
from ketwork.records.signals import deferred, terminable, without_children
from ketwork.records.storage import read_parts, write_parts
from ketwork.records.temporary import remove_left_behind

__all__ = [
    "Checkpoint",
    "Count",
    "Form",
    "Kinds",
    "Malformed",
    "Presented",
    "Unknown",
    "check_codes",
    "check_source",
    "check_tensors",
    "deferred",
    "irregular",
    "pack",
    "presents",
    "read",
    "read_parts",
    "remove_left_behind",
    "replacing",
    "terminable",
    "undirected",
    "unpack",
    "visible",
    "without_children",
    "writable",
    "write",
    "write_parts",
    "write_text",
]
