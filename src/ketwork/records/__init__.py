"""Files written in one step, records whose fields are declared once, and signals. Knows no network.

Imports torch, numpy, safetensors and msgspec. Others take `Record` types (`write`, `read`, `pack`, `unpack`, `Form`,
`Count`), `replacing` for files written in one step, and `Checkpoint`.
"""
