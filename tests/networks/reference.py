"""The textbook formulas on N × N matrices, written apart from the package, in float64."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def hsic(k: Array, m: Array) -> float:
    """HSIC₁ of Song et al. 2012, equation 5."""
    n = len(k)
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    ones = np.ones(n)
    cross = (ones @ k @ ones) * (ones @ m @ ones) / ((n - 1) * (n - 2))
    return float((np.trace(k @ m) + cross - 2 / (n - 2) * (ones @ k @ m @ ones)) / (n * (n - 3)))


def cka(x: Array, y: Array) -> float:
    k, m = x @ x.T, y @ y.T
    return hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))


def cka_biased(x: Array, y: Array) -> float:
    n = len(x)
    h = np.eye(n) - 1 / n
    k, m = h @ x @ x.T @ h, h @ y @ y.T @ h
    return float(np.sum(k * m) / np.sqrt(np.sum(k * k) * np.sum(m * m)))


def _root(state: Array) -> Array:
    values, vectors = np.linalg.eigh(state)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T


def root_fidelity(x: Array, y: Array, center: bool = True) -> float:
    """Tr √(√ρ σ √ρ) of the N × N sample-side states."""
    if center:
        x, y = x - x.mean(0), y - y.mean(0)
    rho, sigma = x @ x.T, y @ y.T
    root = _root(rho / np.trace(rho))
    inner = np.linalg.eigvalsh(root @ (sigma / np.trace(sigma)) @ root)
    return float(np.sqrt(np.clip(inner, 0, None)).sum())


def explained(x: Array, y: Array) -> float:
    """Share of y that least squares of x with an intercept fits."""
    design = np.column_stack([x, np.ones(len(x))])
    left = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    return float(1 - np.sum(left**2) / np.sum((y - y.mean(0)) ** 2))
