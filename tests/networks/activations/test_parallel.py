"""Networks that are spread over two processes: the numbers of the plain network, or a reason why there are none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import ketwork as kw

from . import parallel_job
from .language import DATA, llama, values


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each process saw."""
    folder = tmp_path_factory.mktemp("job")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(kw.__file__).parents[1])}
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", parallel_job.__file__, str(rank), str(folder)],
            env=environment, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        words = [process.communicate(timeout=300)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], words
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def plain() -> dict[str, float]:
    return values(kw.study(llama(), DATA, layers=["*", "*down_proj:input"]))


NOT_ON_CPUS = pytest.mark.xfail(
    torch.__version__.startswith("2.6."),
    reason="its FSDP2 does not run on CPUs",
    raises=KeyError,
    strict=True,
)


@pytest.mark.parametrize("way", [pytest.param("fsdp2", marks=NOT_ON_CPUS), "fsdp1"])
def test_sharded_networks_have_the_numbers_of_the_plain_one(
    way: str, said: list[dict[str, Any]], plain: dict[str, float]
) -> None:
    for one in said:
        assert one[way]["same"]
        assert one[way]["values"] == pytest.approx(plain, rel=1e-9, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("way", ["tensors", "kept"])
def test_under_tensor_parallelism_parts_are_left_out(
    way: str, said: list[dict[str, Any]], plain: dict[str, float]
) -> None:
    parts = {"act_fn", "gate_proj", "up_proj"}
    rest = {f"model.layers.{i}.mlp.down_proj:input" for i in (0, 1)}  # gathered, but nothing says how it lies
    for one in said:
        found = one[way]
        assert found["same"]
        left = {name for name, why in found["skipped"].items() if why.startswith("each process has a part")}
        assert left == {f"model.layers.{i}.mlp.{part}" for i in (0, 1) for part in parts}
        assert all(found["skipped"][name].startswith("nothing says which axis") for name in rest)
        expected = {name: value for name, value in plain.items() if name.split()[0] not in left | rest}
        # A tensor that was waited for is another one: some modules have rows of their own that were aliases.
        assert {name: found["values"][name] for name in expected} == pytest.approx(
            expected, rel=1e-3, abs=1e-4, nan_ok=True
        )


def test_each_process_studies_all_and_one_has_the_result_of_split(
    said: list[dict[str, Any]], plain: dict[str, float]
) -> None:
    assert [one["split"] for one in said] == [pytest.approx(plain["lm_head entropy"], rel=1e-9), None]
    assert [one["resumed"] for one in said] == [pytest.approx(plain["lm_head entropy"], rel=1e-9)] * 2
    for one in said:
        assert one["compared"] == pytest.approx([1, 1], abs=1e-6)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("own", "ValueError: Argument `distributed` is 'own', but the network is sharded over processes"),
        ("compared split", "ValueError: Argument `distributed` is 'split', but a network is sharded"),
        ("other data", "ValueError: Argument `data` must be the same in all processes"),
        ("compressed", "TypeError: Argument `model` is sharded over processes (FSDP or tensor parallelism)"),
        ("collapsed", "TypeError: Argument `model` is sharded over processes (FSDP or tensor parallelism)"),
    ],
)
def test_what_a_sharded_network_cannot_do_is_refused_in_all_processes(
    what: str, words: str, said: list[dict[str, Any]]
) -> None:
    for one in said:
        assert one[what].startswith(words)
