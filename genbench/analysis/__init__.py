"""Statistics over the seeds and configurations of runs."""

from genbench.analysis.bias_variance import bias_variance

__all__ = ["bias_variance"]
