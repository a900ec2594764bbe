"""A sweep over seeds as one would write it in JAX: an MLP under Adam, ``vmap`` over seeds, ``scan`` over steps.

``python jax_seeds.py DATA.npz RESULTS.csv FIRST LAST STEPS``: networks of the seeds FIRST to LAST − 1 in this process,
in one thread.
"""

import csv
import os
import sys

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import jax
import jax.numpy as jnp
import numpy as np

BATCH, RATE = 100, 0.01


def initial(key):
    """He-uniform weights and biases, as ``torch.nn.Linear`` draws them."""
    layers = []
    for n_in, n_out in ((40, 100), (100, 100), (100, 10)):
        key, for_weight, for_bias = jax.random.split(key, 3)
        bound = n_in**-0.5
        weight = jax.random.uniform(for_weight, (n_in, n_out), minval=-bound, maxval=bound)
        layers.append((weight, jax.random.uniform(for_bias, (n_out,), minval=-bound, maxval=bound)))
    return layers


def logits(layers, x):
    for weight, bias in layers[:-1]:
        x = jax.nn.relu(x @ weight + bias)
    return x @ layers[-1][0] + layers[-1][1]


def loss(layers, x, y):
    return -jnp.take_along_axis(jax.nn.log_softmax(logits(layers, x)), y[:, None], 1).mean()


def adam(weights, gradients, moments, step):
    def one(w, g, m, v):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        t = step + 1
        return w - RATE * (m / (1 - 0.9**t)) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8), m, v

    found = jax.tree.map(one, weights, gradients, *moments)
    return tuple(jax.tree.map(lambda _, f, i=i: f[i], weights, found) for i in range(3))


def trained(seed, x, y, steps):
    """Train the network of one seed on shuffled batches, whole epochs."""
    key = jax.random.key(seed)
    per_epoch = len(y) // BATCH

    def step(state, rows):
        weights, m, v, index = state
        value, gradients = jax.value_and_grad(loss)(weights, x[rows], y[rows])
        return (*adam(weights, gradients, (m, v), index), index + 1), value

    def epoch(state, number):
        order = jax.random.permutation(jax.random.fold_in(key, number), len(y))
        state, losses = jax.lax.scan(step, state, order[: per_epoch * BATCH].reshape(per_epoch, BATCH))
        return state, losses[-1]

    weights = initial(key)
    zeros = jax.tree.map(jnp.zeros_like, weights)
    state, losses = jax.lax.scan(epoch, (weights, zeros, zeros, 0), jnp.arange(steps // per_epoch))
    return state[0], losses[-1]


def main(data, results, first, last, steps):
    sets = np.load(data)
    x, y, x_test, y_test = (jnp.asarray(sets[name]) for name in ("x", "y", "x_test", "y_test"))

    @jax.jit
    def whole(seeds):
        weights, objective = jax.vmap(lambda seed: trained(seed, x, y, steps))(seeds)
        scores = [
            jax.vmap(lambda w, a=a, b=b: (logits(w, a).argmax(1) == b).mean())(weights)
            for a, b in ((x, y), (x_test, y_test))
        ]
        return objective, *scores

    rows = zip(range(first, last), *(np.asarray(column) for column in whole(jnp.arange(first, last))), strict=True)
    with open(results, "w", newline="") as file:
        csv.writer(file).writerows([("seed", "objective", "train accuracy", "test accuracy"), *rows])


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:]))
