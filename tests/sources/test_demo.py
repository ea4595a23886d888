import os
import subprocess
import sys

import safetensors.torch
import torch
from sklearn.datasets import load_digits

from ketwork.demo import digits, train


def test_the_shipped_weights_name_held_out_digits():
    images, labels = digits.held_out()
    assert images.shape == (540, 1, 8, 8)
    assert images.dtype == torch.float32
    assert images.min() == 0
    assert images.max() == 1
    assert torch.bincount(labels).tolist() == [54, 55, 53, 55, 54, 55, 54, 54, 52, 54]
    with torch.no_grad():
        right = (digits.model()(images).argmax(dim=1) == labels).float().mean()
    assert right >= 0.97


def test_training_and_held_out_digits_are_apart_and_complete():
    (seen, _), (unseen, _) = digits.training(), digits.held_out()
    assert len(seen) + len(unseen) == 1797
    rows = {bytes(image.numpy()) for image in seen}
    assert not any(bytes(image.numpy()) in rows for image in unseen)


def test_weights_are_small():
    assert digits.WEIGHTS.stat().st_size < 300_000


def test_training_is_repeated_bit_by_bit_and_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second, other = train.trained(epochs=1), train.trained(epochs=1), train.trained(epochs=1, seed=1)
    assert torch.equal(torch.rand(3), expected)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name])
    assert not torch.equal(first.conv1.weight, other.conv1.weight)


def test_training_anew_reaches_what_the_shipped_weights_reach(tmp_path):
    output, images = tmp_path / "anew.safetensors", tmp_path / "images.safetensors"
    command = [sys.executable, "-m", "ketwork.demo.train", str(output), str(images)]
    paths = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **paths})
    network = digits.architecture()
    network.load_state_dict(safetensors.torch.load_file(output))
    reached = train.accuracy(network.eval())
    assert reached >= 0.97
    assert done.stdout == f"{output}: {reached:.4f} of 540 held-out digits right\n"
    anew, shipped = map(safetensors.torch.load_file, (images, digits.IMAGES))
    assert anew.keys() == shipped.keys()
    assert all(anew[name].equal(shipped[name]) for name in anew)
    data = load_digits()
    assert (
        torch.cat([shipped["training_images"], shipped["held_out_images"]]).sum() == data.images.sum()
    )  # all of scikit-learn's


def test_the_demonstration_does_not_import_scikit_learn():
    code = "import sys; from ketwork.demo import digits; digits.held_out(); print('sklearn' in sys.modules)"
    paths = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env={**os.environ, **paths}
    )
    assert done.stdout == "False\n"


def test_the_shipped_weights_are_of_the_shipped_architecture():
    shapes = {name: tensor.shape for name, tensor in digits.architecture().state_dict().items()}
    stored = safetensors.torch.load_file(digits.WEIGHTS)
    assert {name: tensor.shape for name, tensor in stored.items()} == shapes
