"""Files written in one step, typed records whose fields are declared once, and signals. Knows no network.

May import `quantum`. Others take `pack`, `unpack`, `read` and `write` of records.

- Records: `record` (from declared fields to a header and tensors, and back), `forms` (what tensors must be), `storage`
- Files: `files` (written in one step), `temporary`, `checkpoint` (where, and how often); `signals`
- `presenting`: what every result has (repr, save, report)
"""

from ketwork.records.checkpoint import Checkpoint
from ketwork.records.files import irregular, replacing, undirected, visible, writable, write_text
from ketwork.records.forms import Form, Malformed, check_codes, check_source, check_tensors
from ketwork.records.presenting import Presented, presents
from ketwork.records.record import Count, Kinds, Unknown, pack, read, unpack, write
from ketwork.records.signals import deferred, terminable, without_children
from ketwork.records.storage import packed_tensors, read_parts, unpacked_tensors, write_parts
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
    "packed_tensors",
    "presents",
    "read",
    "read_parts",
    "remove_left_behind",
    "replacing",
    "terminable",
    "undirected",
    "unpack",
    "unpacked_tensors",
    "visible",
    "without_children",
    "writable",
    "write",
    "write_parts",
    "write_text",
]
