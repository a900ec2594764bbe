"""Compressed size of the weights, and the performance of the compressed network."""

import lzma

import numpy as np
import torch
from torch import Tensor

from genbench.checks import check_integer
from genbench.measures.base import measure
from genbench.measures.outputs import read, undefined
from genbench.measures.performance import wrong_answers
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate

# no contexts of the last byte or the position: neighbouring weights are hardly related
_FILTER = [{"id": lzma.FILTER_LZMA2, "preset": 9, "lc": 0, "lp": 0, "pb": 0}]


@measure("information", names=("compressed_size", "compressed_loss", "compressed_accuracy"))
def compressed_size(snapshot: Snapshot, *, bits: int = 8) -> dict[str, Estimate]:
    """The bytes that the weights take, ``compressed_size``, after each trainable tensor has been rounded to whole
    multiples of Δ = max|w| / (2^(bits − 1) − 1) and all these integers compressed together by LZMA, with four bytes for
    each Δ; ``compressed_loss`` and ``compressed_accuracy`` are those of the rounded network (as far as it is a
    classifier). Buffers and frozen parameters are not counted.

    Its bits are the description length |h| of the bounds of Zhou et al. 2019 (arXiv 1804.05862), who prune the network
    first: log 2 · |h|/m nats an example. It does not change when a tensor is rescaled, and hardly with the order of the
    units.

    Args:
        snapshot: network, loss and data.
        bits: of an integer before compression, 2 to 16.
    """
    check_integer("bits", bits, least=2, most=16)
    pieces, rounded = [], []
    for p in snapshot.parameters.values():
        integers, step = _rounded(p, bits)
        pieces.append(integers.cpu().numpy().astype(np.int8 if bits <= 8 else "<i2").tobytes())
        rounded.append(integers * step)
    size = len(lzma.compress(b"".join(pieces), format=lzma.FORMAT_RAW, filters=_FILTER)) + 4 * len(pieces)
    vector = torch.cat(rounded)
    reading = read(snapshot)
    right = undefined(reading) if isinstance(reading, str) else Estimate(1 - wrong_answers(snapshot, reading, vector))
    return {
        "compressed_size": Estimate(float(size)),
        "compressed_loss": Estimate(snapshot.loss_at(vector)),
        "compressed_accuracy": right,
    }


def _rounded(p: Tensor, bits: int) -> tuple[Tensor, float]:
    """Integers [size], float64, and the step between them."""
    flat = p.reshape(-1).double()
    step = float(flat.abs().max()) / (2 ** (bits - 1) - 1) if flat.numel() else 0.0
    return (flat / step).round() if step else torch.zeros_like(flat), step
