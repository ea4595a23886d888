"""A trained neuron on a simulated quantum device: what its shots say, with errors, beside what PyTorch computes.

    python examples/neuron_on_a_simulator.py

Needs `pip install 'ketwork[qiskit]'` and qiskit-aer. The neuron is one of the digit network that ketwork ships; its
input are the activations of the layer before on one digit, of which the eight that tell most are taken.
"""

import torch
from qiskit_aer import AerSimulator
from qiskit_aer.noise import NoiseModel, depolarizing_error

from ketwork import circuits
from ketwork.demo import digits


def main(shots: int = 20_000) -> list[circuits.Reading]:
    network, (images, _) = digits.model(), digits.held_out()
    with torch.no_grad():
        inputs = network[:6](images[:1])[0]  # what the hidden layer reads
        best = int(network.hidden(inputs).argmax())
    weight, bias = network.hidden.weight[best].detach(), float(network.hidden.bias[best].detach())
    heaviest = (weight * inputs).abs().topk(8).indices
    weight, x = weight[heaviest], inputs[heaviest]

    neuron = circuits.neuron(weight, x, bias, torch.relu, to="qiskit")
    print(f"the circuit:        {neuron.exported}")
    print(f"PyTorch:            w·x + b = {float(weight @ x) + bias:+.4f}")

    measured = neuron.exported.circuit.measure_all(inplace=False)
    readings = []
    for name, error in (("a perfect device", 0.0), ("1 % error a CNOT", 0.01), ("5 % error a CNOT", 0.05)):
        noise = NoiseModel()
        noise.add_all_qubit_quantum_error(depolarizing_error(error, 2), ["cx"])
        counts = (
            AerSimulator(noise_model=noise, seed_simulator=1).run(measured, shots=shots).result().get_counts()
        )
        ones = sum(count for bits, count in counts.items() if bits[0] == "1")
        reading = neuron.read(ones, shots)
        readings.append(reading)
        print(
            f"{name}:   w·x + b = {reading.preactivation.value:+.4f} ± {reading.preactivation.stderr:.4f}, "
            f"ReLU {reading.output.value:.4f} ± {reading.output.stderr:.4f}"
        )
    return readings


if __name__ == "__main__":
    main()
