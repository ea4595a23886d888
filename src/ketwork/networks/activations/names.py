"""What the rows of a capture are called, where several modules returned one tensor."""

from __future__ import annotations

from collections.abc import Collection

from ketwork.networks.activations.captures import Capture, Key


def row_names(live: Capture, rows: Collection[Key]) -> dict[Key, tuple[Key, tuple[str, ...]]]:
    """What each row is called, and by which other names it can be found.

    Of the modules that returned one tensor (a block and the norm at its end) the row takes the name of the
    block, else of the outermost one around the module that computed it; the whole network comes last.
    """
    same: dict[Key, list[Key]] = {key: [key] for key in rows}
    for alias, row in live.aliases.items():
        if row in same and alias not in rows:
            same[row].append(alias)
    named = {}
    for row, keys in same.items():
        around = [key for key in keys if row[0] == key[0] or row[0].startswith(f"{key[0]}.")]
        blocks = [key for key in around if key[0] in live.selection.blocks]
        chosen = min(blocks or around, key=lambda key: len(key[0]))
        named[row] = (chosen, tuple(dict.fromkeys(key[0] for key in keys if key != chosen)))
    return named
