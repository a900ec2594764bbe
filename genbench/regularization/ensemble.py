"""Deep ensembles."""

from genbench.regularization.base import Method


class Ensemble(Method):
    """Trains ``members`` networks independently (own initial weights, batch order and draws) and averages their class
    probabilities (Lakshminarayanan et al. 2017, arXiv 1612.01474)."""

    def __init__(self, *, members: int) -> None:
        super().__init__()
        if not isinstance(members, int) or isinstance(members, bool) or members < 2:
            raise ValueError(f"regularization Ensemble: members={members!r} is not a whole number ≥ 2")
        self.members = members
