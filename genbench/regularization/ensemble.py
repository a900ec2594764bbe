"""Deep ensembles."""

from genbench.checks import check_flag, check_integer
from genbench.regularization.base import Method


class Ensemble(Method):
    """Trains ``members`` networks side by side and averages their class probabilities.

    By default each has its own initial weights, batch order and random numbers (Lakshminarayanan et al. 2017, arXiv
    1612.01474). With ``data.parts`` each trains on examples of its own.

    Args:
        members: number of networks, at least 2.
        share_init: whether all start from the same weights.
        share_order: whether all see batches in the same order and draw the same random numbers.
    """

    per_lane = ()

    def __init__(self, *, members: int, share_init: bool = False, share_order: bool = False) -> None:
        super().__init__()
        self.members = check_integer("regularization Ensemble: members", members, least=2)
        self.share_init = check_flag("regularization Ensemble: share_init", share_init)
        self.share_order = check_flag("regularization Ensemble: share_order", share_order)
