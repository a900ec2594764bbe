"""Decision rules: each tests over the numbers of seeds, or over groups or configurations of a grid."""

from genbench.claims.rules.base import Rule
from genbench.claims.rules.combined import All, Any, Exact
from genbench.claims.rules.contrasts import Contrast, Distance
from genbench.claims.rules.correlations import Correlation, CorrelationDifference
from genbench.claims.rules.curves import Peak, PeakSlope, Slope, Trend
from genbench.claims.rules.differences import Difference, Equivalence, Order
from genbench.claims.rules.interactions import Interacts
from genbench.claims.rules.orders import RanksDiffer
from genbench.claims.rules.rankings import Ranks, RanksWrongly
from genbench.claims.rules.shares import Proportion, Sooner

__all__ = [
    "All",
    "Any",
    "Contrast",
    "Correlation",
    "CorrelationDifference",
    "Difference",
    "Distance",
    "Equivalence",
    "Exact",
    "Interacts",
    "Order",
    "Peak",
    "PeakSlope",
    "Proportion",
    "Ranks",
    "RanksDiffer",
    "RanksWrongly",
    "Rule",
    "Slope",
    "Sooner",
    "Trend",
]
