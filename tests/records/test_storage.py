"""Tensors and a header go to a file and come back, whatever memory they lie in; other files are refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ketwork.records import read_parts, write_parts


def test_tensors_come_back_whatever_memory_they_lie_in(tmp_path: Path) -> None:
    base = torch.arange(24, dtype=torch.float64).reshape(4, 6)
    complex_ = torch.randn(3, 2, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    tensors = {
        "base": base,
        "again": base,
        "a part": base[1:3],
        "turned": base.T,
        "repeated": base[:1].expand(5, 6),
        "complex": complex_,
        "conjugated": complex_.conj().mT,
        "wide": complex_.to(torch.complex128),
        "one": torch.tensor(2.5),
        "none": torch.zeros(0, 3),
        "none either": torch.zeros(0, 3, dtype=torch.complex128),
        "codes": torch.tensor([2**62, -5]),
    }
    write_parts(tmp_path / "file", "thing", 3, tensors, {"about": [1, None, {"x": "ψ"}]})
    found, header = read_parts(tmp_path / "file", "thing", 3)
    assert header == {"kind": "thing", "schema": 3, "about": [1, None, {"x": "ψ"}]}
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor.resolve_conj()), name


def test_files_of_another_kind_or_schema_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(FileNotFoundError, match="must be a saved thing, but there is no file"):
        read_parts(path, "thing", 1)
    write_parts(path, "thing", 2, {"x": torch.ones(2)}, {})
    assert read_parts(path, "thing", 2)[1]["schema"] == 2
    assert read_parts(path, "thing", 5)[1]["schema"] == 2  # an older one, which its reader may upgrade
    with pytest.raises(ValueError, match=r"schema 1 or older, but .* has schema 2: a newer ketwork wrote it"):
        read_parts(path, "thing", 1)
    with pytest.raises(ValueError, match="a safetensors file of something else"):
        read_parts(path, "other", 2)
    save_file({"x": torch.ones(2)}, path, metadata={"ketwork": json.dumps({"kind": "thing", "schema": 2})})
    with pytest.raises(ValueError, match="is damaged: what it holds is not what was written"):
        read_parts(path, "thing", 2)


def test_numbers_that_json_does_not_have_are_not_written(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("what was there before")
    with pytest.raises(ValueError, match="JSON"):
        write_parts(path, "thing", 1, {}, {"x": float("nan")})
    assert path.read_text() == "what was there before"
