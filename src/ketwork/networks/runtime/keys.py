"""Where a pass's random keys come from: the same for the same data and seed, others for other data.

Parts of data are studied one by one, each with the same seed, and the studies are added.
Were the keys the seed's alone, the samples kept would stand at the same places of every part. So the first
sample of the data takes part in the seed.
"""

from __future__ import annotations

import hashlib

import torch

from ketwork.networks.activations import Batch, tensors


def key_stream(generator: torch.Generator, batch: Batch) -> int:
    """The seed of the keys of data that begins with that batch, below 2⁶²."""
    sha256 = hashlib.sha256(str(int(torch.randint(2**62, (), generator=generator))).encode())
    inputs = next(tensors(batch.content))  # labels, which come later, can be given in many forms
    if inputs.layout == torch.strided and not inputs.is_nested:
        first = inputs[0].detach().resolve_conj().cpu().contiguous().reshape(-1)
        sha256.update(first.view(torch.uint8).numpy().tobytes())
    return int.from_bytes(sha256.digest()[:8], "little") >> 2
