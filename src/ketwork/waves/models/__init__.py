"""Networks that give log-amplitudes: each an `nn.Module` from configurations (batch, sites) to (batch,)."""
