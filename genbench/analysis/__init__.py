"""Statistics over the seeds and configurations of runs."""

from genbench.analysis.bias_variance import bias_variance
from genbench.analysis.correlations import correlations
from genbench.analysis.granulated import granulated
from genbench.analysis.memorization import influence, memorization
from genbench.analysis.mutual_information import conditional_mutual_information
from genbench.analysis.partial import partial_association
from genbench.analysis.power_law import PowerLaw, power_law
from genbench.analysis.prediction import out_of_sample
from genbench.analysis.ranking import Ranking, rank
from genbench.analysis.sign_errors import pair_sign_errors, sign_errors
from genbench.analysis.stability import stability

__all__ = [
    "PowerLaw",
    "Ranking",
    "bias_variance",
    "conditional_mutual_information",
    "correlations",
    "granulated",
    "influence",
    "memorization",
    "out_of_sample",
    "pair_sign_errors",
    "partial_association",
    "power_law",
    "rank",
    "sign_errors",
    "stability",
]
