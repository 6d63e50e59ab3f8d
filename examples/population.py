"""The network of digits.py, trained a part at a time: it goes on from a checkpoint, with another learning rate maybe.

By hand: `python population.py`. What a checkpoint needs in order to be gone on from: the weights, the optimizer's own
state, and how much has been done. What does not belong in it is the configuration, which is read anew each time.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from digits import TESTED, Network, Sgd, batches, load_digits

import tuneyard

EPOCHS = 60
WIDTH = 32  # no parameter: the weights of one network fit no other


def main() -> None:
    config = tuneyard.parameters(lr=0.05, momentum=0.9, batch=32, epochs=EPOCHS)
    folder = tuneyard.checkpoint_dir()
    images, labels = load_digits()
    order = np.random.default_rng(seed=0).permutation(len(images))
    tested, trained = order[:TESTED], order[TESTED:]
    network = Network([64, WIDTH, 10], np.random.default_rng(seed=1))
    optimizer = Sgd(config["lr"], config["momentum"])
    done = load(folder / "state.npz", network, optimizer) if folder else 0
    for epoch in range(done, config["epochs"]):
        for batch in batches(np.random.default_rng((2, epoch)).permutation(trained), config["batch"]):
            optimizer.step(network.tensors, network.loss_and_gradients(images[batch], labels[batch])[1])
        loss, _ = network.loss_and_gradients(images[tested], labels[tested])
        accuracy = np.mean(network.predict(images[tested]) == labels[tested])
        tuneyard.report(step=epoch, loss=loss, accuracy=accuracy)
    if folder:
        save(folder / "state.npz", network, optimizer, config["epochs"])


def load(file: Path, network: Network, optimizer: Sgd) -> int:
    """Read a checkpoint, if there is one; how many epochs are done."""
    if not file.exists():
        return 0
    with np.load(file) as state:
        for number, tensor in enumerate(network.tensors):
            tensor[:] = state[f"tensor{number}"]
        optimizer.velocities = [state[f"velocity{number}"] for number in range(len(network.tensors))]
        return int(state["done"])


def save(file: Path, network: Network, optimizer: Sgd, done: int) -> None:
    """Write a checkpoint: whole or not at all."""
    state = {f"tensor{number}": tensor for number, tensor in enumerate(network.tensors)}
    state |= {f"velocity{number}": velocity for number, velocity in enumerate(optimizer.velocities)}
    new = file.with_name("new.npz")
    np.savez(new, done=done, **state)
    new.rename(file)


if __name__ == "__main__":
    main()
