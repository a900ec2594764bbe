"""Deep ensembles."""

from genbench.checks import check_integer
from genbench.regularization.base import Method


class Ensemble(Method):
    """Trains ``members`` networks independently and averages their class probabilities.

    Each has its own initial weights, batch order and random numbers (Lakshminarayanan et al. 2017, arXiv 1612.01474).
    """

    per_lane = ()

    def __init__(self, *, members: int) -> None:
        super().__init__()
        self.members = check_integer("regularization Ensemble: members", members, least=2)
