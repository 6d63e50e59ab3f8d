"""A neural network that learns to read handwritten digits: 1,797 images of 8 x 8 pixels, ten classes.

By hand: `python digits.py`. The network is plain NumPy and the images are read straight out of scikit-learn's folder:
importing scikit-learn takes longer than this training.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import tuneyard

Array = NDArray[np.float32]

EPOCHS = 300
TESTED = 450  # images that are held out: a quarter


def main() -> None:
    config = tuneyard.parameters(layers=2, width=64, optimizer="sgd", lr=0.05, momentum=0.9, batch=32, epochs=EPOCHS)
    rng = np.random.default_rng(seed=0)
    images, labels = load_digits()
    order = rng.permutation(len(images))
    tested, trained = order[:TESTED], order[TESTED:]
    network = Network([64] + [config["width"]] * config["layers"] + [10], rng)
    optimizer = Adam(config["lr"]) if config["optimizer"] == "adam" else Sgd(config["lr"], config["momentum"])
    for epoch in range(config["epochs"]):
        losses = []
        for batch in batches(rng.permutation(trained), config["batch"]):
            loss, gradients = network.loss_and_gradients(images[batch], labels[batch])
            optimizer.step(network.tensors, gradients)
            losses.append(loss)
        accuracy = np.mean(network.predict(images[tested]) == labels[tested])
        tuneyard.report(step=epoch, accuracy=accuracy, loss=np.mean(losses))


def load_digits() -> tuple[Array, NDArray[np.int64]]:
    """Pixels from 0 to 1, shape (1797, 64), and labels from 0 to 9, shape (1797,)."""
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise SystemExit("digits.py needs the data in scikit-learn: pip install scikit-learn")
    with gzip.open(Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz", "rt") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.float32)
    return table[:, :64] / np.float32(16), table[:, 64].astype(np.int64)


def batches(indices: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(indices), size):
        yield indices[start : start + size]


class Network:
    """Fully connected layers with ReLU between them and softmax at the end.

    Args:
        sizes: width of the input, of each hidden layer and of the output.
        rng: draws the initial weights (He et al. 2015, https://arxiv.org/abs/1502.01852).
    """

    def __init__(self, sizes: list[int], rng: np.random.Generator) -> None:
        shapes = list(pairwise(sizes))
        self.weights = [rng.normal(0, (2 / rows) ** 0.5, (rows, cols)).astype(np.float32) for rows, cols in shapes]
        self.biases = [np.zeros(cols, np.float32) for _, cols in shapes]

    @property
    def tensors(self) -> list[Array]:
        """What an optimizer changes, in place."""
        return self.weights + self.biases

    def predict(self, images: Array) -> NDArray[np.int64]:
        """The likeliest label of each image."""
        likeliest: NDArray[np.int64] = self._activations(images)[-1].argmax(axis=1)
        return likeliest

    def loss_and_gradients(self, images: Array, labels: NDArray[np.int64]) -> tuple[float, list[Array]]:
        """Mean cross-entropy, and its gradient by each of `tensors`."""
        activations = self._activations(images)
        each = np.arange(len(labels))
        logits = activations[-1] - activations[-1].max(axis=1, keepdims=True)
        logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        delta = np.exp(logs)
        delta[each, labels] -= 1
        delta /= len(labels)
        by_weights, by_biases = [], []
        for inputs, weights in zip(reversed(activations[:-1]), reversed(self.weights), strict=True):
            by_weights.append(inputs.T @ delta)
            by_biases.append(delta.sum(axis=0))
            delta = (delta @ weights.T) * (inputs > 0)
        return float(-logs[each, labels].mean()), by_weights[::-1] + by_biases[::-1]

    def _activations(self, images: Array) -> list[Array]:
        """The input, the output of each hidden layer, and the logits."""
        activations = [images]
        for weights, biases in zip(self.weights, self.biases, strict=True):
            inputs = activations[-1] if len(activations) == 1 else np.maximum(activations[-1], 0, out=activations[-1])
            activations.append(inputs @ weights + biases)
        return activations


class Sgd:
    """Stochastic gradient descent with momentum."""

    def __init__(self, lr: float, momentum: float) -> None:
        self.lr, self.momentum = lr, momentum
        self.velocities: list[Array] = []

    def step(self, tensors: list[Array], gradients: list[Array]) -> None:
        """Move the tensors."""
        self.velocities = self.velocities or [np.zeros_like(tensor) for tensor in tensors]
        for tensor, gradient, velocity in zip(tensors, gradients, self.velocities, strict=True):
            velocity[:] = self.momentum * velocity - self.lr * gradient
            tensor[:] += velocity


class Adam:
    """Kingma and Ba 2015, algorithm 1 (https://arxiv.org/abs/1412.6980)."""

    def __init__(self, lr: float, beta1: float = 0.9, beta2: float = 0.999) -> None:
        self.lr, self.beta1, self.beta2 = lr, beta1, beta2
        self.steps = 0
        self.moments: list[tuple[Array, Array]] = []

    def step(self, tensors: list[Array], gradients: list[Array]) -> None:
        """Move the tensors."""
        self.moments = self.moments or [(np.zeros_like(tensor), np.zeros_like(tensor)) for tensor in tensors]
        self.steps += 1
        rate = self.lr * (1 - self.beta2**self.steps) ** 0.5 / (1 - self.beta1**self.steps)
        for tensor, gradient, (first, second) in zip(tensors, gradients, self.moments, strict=True):
            first[:] += (1 - self.beta1) * (gradient - first)
            second[:] += (1 - self.beta2) * (gradient**2 - second)
            tensor[:] -= rate * first / (np.sqrt(second) + 1e-8)


if __name__ == "__main__":
    main()
