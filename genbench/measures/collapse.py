"""The geometry of neural collapse beyond the variance within classes."""

import torch
from torch import Tensor

from genbench.measures.base import measure
from genbench.measures.linear_layers import linear_layers
from genbench.measures.performance import class_labels
from genbench.measures.representation import NO_HIDDEN, hidden, penultimate
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate

_NAMES = ("collapse_norms", "collapse_angles", "collapse_duality", "collapse_mismatch")


@measure("representation", names=_NAMES)
def collapse_geometry(snapshot: Snapshot) -> dict[str, Estimate]:
    """How far the class means of the penultimate features and the last layer are from the geometry of neural collapse
    (Papyan, Han & Donoho 2020, arXiv 2008.08186); 0 where it is reached:

    - ``collapse_norms`` and ``collapse_angles``, NC2: the coefficient of variation of ‖m_c‖, and the mean of
      |cos(m_c, m_c') + 1/(K − 1)| over pairs of classes, m_c the mean of class c less the mean of the class means;
    - ``collapse_duality``, NC3: ‖W/‖W‖ − M/‖M‖‖², W [K, F] the weights of the last linear layer, M the rows m_c;
    - ``collapse_mismatch``, NC4: the share of examples whose largest output is not the class of the nearest mean.

    :func:`genbench.measures.neural_collapse` is NC1. Means are those of the data of the snapshot. NC3 has no value
    where the last linear layer does not give the outputs from the features, or where the data lack a class.

    The coefficient of variation has the denominator K, as in the authors' code.
    """
    features, labels = hidden(snapshot), class_labels(snapshot)
    last = penultimate(features)
    if last is None:
        return dict.fromkeys(_NAMES, NO_HIDDEN)
    if labels is None or len(labels) != snapshot.examples:
        return dict.fromkeys(_NAMES, Estimate(None, note="undefined: the targets are not one class an example"))
    x, outputs = features[last].double(), torch.cat([output for output, _ in snapshot.predictions])
    classes, own, counts = labels.unique(return_inverse=True, return_counts=True)
    k = len(classes)
    if k < 2:
        return dict.fromkeys(_NAMES, Estimate(None, note="undefined: all examples are of one class"))
    means = torch.zeros(k, x.shape[1], dtype=x.dtype, device=x.device).index_add_(0, own, x) / counts[:, None]
    centred = means - means.mean(0)
    norms = centred.norm(dim=1)
    if not norms.all():
        return dict.fromkeys(_NAMES, Estimate(None, note="undefined: the mean of a class is the mean of all"))
    cosines = (centred @ centred.T / norms / norms[:, None])[*torch.triu_indices(k, k, 1, device=x.device)]
    found = {
        "collapse_norms": Estimate(float(norms.std(correction=0) / norms.mean())),
        "collapse_angles": Estimate(float((cosines + 1 / (k - 1)).abs().mean())),
        "collapse_duality": _duality(snapshot, centred, outputs),
        "collapse_mismatch": Estimate(None, note="undefined: the outputs are not one row an example"),
    }
    if outputs.ndim == 2 and len(outputs) == len(x):
        nearest = classes[torch.cdist(x, means).argmin(1)]
        found["collapse_mismatch"] = Estimate(float((outputs.argmax(1) != nearest).double().mean()))
    return found


def _duality(snapshot: Snapshot, centred: Tensor, outputs: Tensor) -> Estimate:
    _, layers = linear_layers(snapshot, next(snapshot.each_batch()))
    k, width = centred.shape
    if not layers or layers[-1].weight.shape != (outputs.shape[1], width):
        return Estimate(None, note="undefined: the last linear layer does not give the outputs from the features")
    weight = layers[-1].weight
    if len(weight) != k:
        return Estimate(None, note=f"undefined: the data have {k} of {len(weight)} classes")
    return Estimate(float((weight / weight.norm() - centred / centred.norm()).square().sum()))
