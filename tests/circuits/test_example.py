"""The example script: a perfect device says what PyTorch computes, and one with errors says less."""

import runpy
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "neuron_on_a_simulator.py"


def test_a_neuron_on_a_simulator(capsys) -> None:
    perfect, some, more = runpy.run_path(str(EXAMPLE))["main"](shots=20_000)
    computed = float(capsys.readouterr().out.splitlines()[1].split("=")[1])
    assert abs(perfect.preactivation.value - computed) < 4 * perfect.preactivation.stderr
    assert perfect.preactivation > some.preactivation > more.preactivation
