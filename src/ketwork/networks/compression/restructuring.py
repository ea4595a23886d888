"""Modules of torch.nn whose matrices no other module can stand for are taken apart first, and put together in the
end."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ketwork.networks.compression import attention, recurrent
from ketwork.networks.compression.surgery import replace


@dataclass(frozen=True)
class Apart:
    """What was taken apart in a network: the originals by path, recurrent networks and attention."""

    recurrences: dict[str, nn.Module]
    attentions: dict[str, nn.Module]

    @classmethod
    def of(cls, model: nn.Module) -> Apart:
        """Takes recurrent networks and attention apart, in place."""
        return cls(recurrent.unrolled(model), attention.taken_apart(model))

    @property
    def originals(self) -> dict[str, nn.Module]:
        """All of them."""
        return self.recurrences | self.attentions

    def together(self, model: nn.Module, base: nn.Module, like: nn.Module) -> nn.Module:
        """A candidate as it is given, in place: what has not changed from `base` in `like` is the original again.

        `like` is the candidate itself, or what it is a copy of, whose numbers share memory with `base` where they
        are its.
        """
        changed = set()
        for path in self.originals:
            before = {p.data_ptr() for p in base.get_submodule(path).parameters()}
            after = {p.data_ptr() for p in like.get_submodule(path).parameters()}
            if before != after:
                changed.add(path)
        recurrent.rolled(model, self.recurrences, changed)
        replace(model, {path: module for path, module in self.attentions.items() if path not in changed})
        return model
