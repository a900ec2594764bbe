"""Generalized cross-entropy."""

from torch import Tensor

from genbench.regularization.base import Method, expected


class GeneralizedCrossEntropy(Method):
    """Replaces the cross-entropy by (1 − p_y^q) / q, which label noise harms less.

    It lies between the cross-entropy (q → 0) and the mean absolute error (q = 1) (Zhang & Sabuncu 2018, arXiv
    1805.07836, Eq. 6, without truncation). For class probabilities as targets it is the expectation over the classes.
    """

    q: Tensor

    def __init__(self, *, q: float) -> None:
        super().__init__()
        self.setting("q", q, low=0, high=1, open_low=True)  # the limit q → 0 is the cross-entropy

    def loss(self, output: Tensor, y: Tensor) -> Tensor:
        q = self.q.to(output.dtype)
        return expected(-(q * output.log_softmax(1)).expm1() / q, y)
