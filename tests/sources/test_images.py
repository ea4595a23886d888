"""Images as a network was trained on them: mean and standard deviation, or its folder's own image processor."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ketwork.sources import SourceError, load_data, load_model
from ketwork.sources.images import Processor


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Two classes of two images of 6 × 4 pixels."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    generator = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "p" / name).mkdir(parents=True)
        for i in range(2):
            Image.fromarray(generator.integers(0, 256, (6, 4, 3), dtype=np.uint8)).save(f"p/{name}/{i}.png")
    return tmp_path


def pixels() -> torch.Tensor:
    ((x, _),) = load_data("p")
    return x


def test_mean_and_std_of_each_channel():
    plain = pixels()
    assert 0 <= plain.min() < 0.1 < 0.9 < plain.max() <= 1
    loaded = load_data("p", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    ((x, _),) = loaded
    mean, std = (torch.tensor(each)[:, None, None] for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    torch.testing.assert_close(x, (plain - mean) / std)
    assert loaded.description["mean"] == [0.485, 0.456, 0.406]
    ((one, _),) = load_data("p", mean=[0.5], std=[0.5])
    torch.testing.assert_close(one, 2 * plain - 1)
    assert load_data("p").description["std"] == [1.0]
    assert load_data("p").notes == ()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mean": (0.5, 0.5)}, "`mean` must be one number, or one for each of 3 channels, but was"),
        ({"std": (0.0,)}, "`std` must be positive"),
        ({"mean": (float("nan"),)}, "`mean` must be one number"),
    ],
)
def test_numbers_that_cannot_be(options, words):
    with pytest.raises(SourceError, match=words):
        load_data("p", **options)


def test_mean_and_std_are_of_images_alone():
    np.save("x.npy", np.zeros((2, 3)))
    with pytest.raises(SourceError, match="`mean` applies to a folder of images"):
        load_data("x.npy", mean=[0.5])


def test_a_models_own_processor_prepares_them():
    seen = []

    def run(images, return_tensors):
        assert return_tensors == "np"
        seen.append(images)
        return {"pixel_values": [np.full((3, 8, 8), float(len(seen)), dtype=np.float32)]}

    processor = Processor("preprocessor_config.json", run)
    loaded = load_data("p", processor=processor)
    ((x, labels),) = loaded
    assert x.shape == (4, 3, 8, 8)
    assert x[:, 0, 0, 0].tolist() == [1, 2, 3, 4]
    assert labels.tolist() == [0, 0, 1, 1]
    assert [image.size for image in seen] == [(4, 6)] * 4
    assert loaded.notes == (
        "Images are prepared by the model's own image processor (preprocessor_config.json).",
    )
    given = load_data("p", processor=processor, mean=[0.5])
    assert "was ignored: images had mean 0.5 and std 1.0, as given." in given.notes[0]
    assert len(seen) == 4
    missing = load_data(
        "p", processor=Processor("preprocessor_config.json", None, "it does not load (no torchvision)")
    )
    assert missing.notes[0].endswith("neither centred nor scaled: give --mean and --std (`mean`, `std`).")
    assert "it does not load (no torchvision)" in missing.notes[0]


def test_a_folder_with_a_processor(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        image_size=8,
        patch_size=4,
        hidden_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
    )
    transformers.ViTModel(config).save_pretrained("vit")
    transformers.ViTImageProcessorPil if hasattr(transformers, "ViTImageProcessorPil") else None
    (tmp_path / "vit" / "preprocessor_config.json").write_text(
        '{"image_processor_type": "ViTImageProcessor", "do_resize": true, "size": {"height": 8, "width": 8}, '
        '"do_rescale": true, "do_normalize": true, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}'
    )
    model = load_model("vit")
    assert model.processor is not None
    loaded = load_data("p", processor=model.processor)
    if model.processor.run is None:  # transformers makes it of torchvision alone
        assert "was ignored: it does not load" in loaded.notes[0]
        return
    ((x, _),) = loaded
    assert x.shape == (4, 3, 8, 8)
    assert -1 <= x.min() < -0.3 < 0.3 < x.max() <= 1
    assert model.model(x).last_hidden_state.shape == (4, 5, 12)


def test_a_network_that_says_how_it_was_trained(tmp_path):
    (tmp_path / "own_nets.py").write_text(
        "from torch import nn\n"
        "def build():\n"
        "    net = nn.Sequential(nn.Flatten(), nn.Linear(72, 2))\n"
        "    net.pretrained_cfg = {'mean': (0.485, 0.456, 0.406), 'std': (0.229, 0.224, 0.225)}\n"
        "    return net\n"
    )
    model = load_model("own_nets.py:build")
    assert isinstance(model.model, nn.Sequential)
    (note,) = load_data("p", processor=model.processor).notes
    assert "(`pretrained_cfg`, mean 0.485, 0.456, 0.406, std 0.229, 0.224, 0.225) was ignored" in note
    assert "give --mean and --std" in note
