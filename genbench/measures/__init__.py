"""Pure functions of a snapshot, under the names the field uses.

>>> import torch
>>> model = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
>>> batches = [(torch.randn(16, 2), torch.randint(3, (16,)))]

>>> from genbench.measures import Snapshot, hessian_eigenvalues, hessian_trace
>>> snapshot = Snapshot(model, torch.nn.functional.cross_entropy, batches)
>>> top = hessian_eigenvalues(snapshot, k=5)
>>> list(top), top["lambda_1"].converged
(['lambda_1', 'lambda_2', 'lambda_3', 'lambda_4', 'lambda_5'], True)
>>> hessian_trace(snapshot, seed=0).value > top["lambda_1"].value
True
"""

from genbench.measures.active_weights import active_inputs, active_weights
from genbench.measures.adversarial import adversarial_accuracy
from genbench.measures.augmented import augmentation_change, augmented_margin
from genbench.measures.base import measure
from genbench.measures.bounds import pac_bayes_bound, sign_correlation, vc_bound, vc_dimension
from genbench.measures.coherence import gradient_coherence, stiffness, train_coherence, train_stiffness
from genbench.measures.collapse import collapse_geometry
from genbench.measures.compression import compressed_size
from genbench.measures.compute import flops
from genbench.measures.corrupted import corrupted_performance, mean_corruption_error
from genbench.measures.critical_samples import critical_sample_ratio
from genbench.measures.curvature import (
    gauss_newton_eigenvalues,
    gauss_newton_frobenius_norm,
    gauss_newton_trace,
    hessian_eigenvalues,
    hessian_frobenius_norm,
    hessian_trace,
    layer_curvature,
)
from genbench.measures.davies_bouldin import davies_bouldin
from genbench.measures.description_length import mixture_code, prequential_code, two_part_code
from genbench.measures.difficulty import difficulty_dispersion, difficulty_quantiles
from genbench.measures.disagreement import disagreement, ensemble_disagreement
from genbench.measures.diversity import diversity
from genbench.measures.drift import drift_accuracy, generator_drift_accuracy
from genbench.measures.ensemble import ensemble_bias_variance, ensemble_curve
from genbench.measures.ensemble_connectivity import ensemble_connectivity
from genbench.measures.explained_information import answer_information, explained_information
from genbench.measures.fisher import empirical_fisher_trace, fisher_rao_norm, fisher_trace
from genbench.measures.flat_box import flat_box_volume, sensitive_weights
from genbench.measures.gap import generalization_gap
from genbench.measures.gradient_step import gradient_step
from genbench.measures.information import mutual_information_binned, mutual_information_kde
from genbench.measures.input_curvature import input_curvature
from genbench.measures.kernel_interpolation import convolution_interpolation, gaussian_interpolation
from genbench.measures.learning_coefficient import learning_coefficient
from genbench.measures.log_prior import log_prior, marginal_likelihood_bound
from genbench.measures.margin_bounds import rademacher_bound, spectral_margin_bound
from genbench.measures.margins import (
    input_margin,
    inverse_margin,
    margin,
    margin_quantiles,
    negative_entropy,
    normalized_margin,
    normalized_margin_quantiles,
)
from genbench.measures.memorization import influence, memorization, memorization_removal
from genbench.measures.mixup import label_wise_mixup
from genbench.measures.norms import (
    convolution_spectral_norms,
    distance_from_init,
    l2_norm,
    matrix_distances,
    matrix_norms,
    norms_over_margin,
    parameter_norms,
    spectral_norm,
)
from genbench.measures.ood import ood_auroc
from genbench.measures.optimization import (
    drift_and_diffusion,
    gradient_noise_scale,
    gradient_norm,
    gradient_snr,
    gradient_variance,
)
from genbench.measures.over_examples import over_examples
from genbench.measures.pacbayes import pacbayes_measures, pacbayes_sigma, sharpness_alpha, sharpness_measures
from genbench.measures.path_norm import path_norm
from genbench.measures.performance import accuracy, brier_score, calibration_error, cross_entropy, error, soft_error
from genbench.measures.posterior import pac_bayes_optimized
from genbench.measures.random_labels import ratt_bound
from genbench.measures.relative_flatness import relative_flatness
from genbench.measures.representation import (
    effective_rank,
    intrinsic_dimension,
    linear_cka,
    neural_collapse,
    participation_ratio,
)
from genbench.measures.rescaling import rescaled, rescaling, scale_dependence
from genbench.measures.response_curve import perturbation_response
from genbench.measures.sensitivity import jacobian_norm, linear_region_transitions
from genbench.measures.sharpness import (
    adaptive_sharpness,
    first_order_flatness,
    keskar_sharpness,
    m_sharpness,
    sam_sharpness,
)
from genbench.measures.sharpness_average import (
    adaptive_average_sharpness,
    average_sharpness,
    low_pass_filter_sharpness,
)
from genbench.measures.simplicity import lempel_ziv_complexity, simplicity_bias
from genbench.measures.snapshot import Snapshot
from genbench.measures.spectra import power_law, weight_spectrum
from genbench.measures.spectral_density import effective_dimension
from genbench.measures.stability import stability_ratio
from genbench.measures.subspace import subspace_compression_bound
from genbench.measures.surface import Plane, Slice, interpolation, linear_mode_connectivity, loss_line, loss_plane
from genbench.measures.tangent_kernel import tangent_kernel
from genbench.measures.temperature import calibrated_cross_entropy
from genbench.measures.variational_code import variational_code
from genbench.measures.weight_matching import match_weights, matched_mode_connectivity
from genbench.records.estimate import Estimate

__all__ = [
    "Estimate",
    "Plane",
    "Slice",
    "Snapshot",
    "accuracy",
    "active_inputs",
    "active_weights",
    "adaptive_average_sharpness",
    "adaptive_sharpness",
    "adversarial_accuracy",
    "answer_information",
    "augmentation_change",
    "augmented_margin",
    "average_sharpness",
    "brier_score",
    "calibrated_cross_entropy",
    "calibration_error",
    "collapse_geometry",
    "compressed_size",
    "convolution_interpolation",
    "convolution_spectral_norms",
    "corrupted_performance",
    "critical_sample_ratio",
    "cross_entropy",
    "davies_bouldin",
    "difficulty_dispersion",
    "difficulty_quantiles",
    "disagreement",
    "distance_from_init",
    "diversity",
    "drift_accuracy",
    "drift_and_diffusion",
    "effective_dimension",
    "effective_rank",
    "empirical_fisher_trace",
    "ensemble_bias_variance",
    "ensemble_connectivity",
    "ensemble_curve",
    "ensemble_disagreement",
    "error",
    "explained_information",
    "first_order_flatness",
    "fisher_rao_norm",
    "fisher_trace",
    "flat_box_volume",
    "flops",
    "gauss_newton_eigenvalues",
    "gauss_newton_frobenius_norm",
    "gauss_newton_trace",
    "gaussian_interpolation",
    "generalization_gap",
    "generator_drift_accuracy",
    "gradient_coherence",
    "gradient_noise_scale",
    "gradient_norm",
    "gradient_snr",
    "gradient_step",
    "gradient_variance",
    "hessian_eigenvalues",
    "hessian_frobenius_norm",
    "hessian_trace",
    "influence",
    "input_curvature",
    "input_margin",
    "interpolation",
    "intrinsic_dimension",
    "inverse_margin",
    "jacobian_norm",
    "keskar_sharpness",
    "l2_norm",
    "label_wise_mixup",
    "layer_curvature",
    "learning_coefficient",
    "lempel_ziv_complexity",
    "linear_cka",
    "linear_mode_connectivity",
    "linear_region_transitions",
    "log_prior",
    "loss_line",
    "loss_plane",
    "low_pass_filter_sharpness",
    "m_sharpness",
    "margin",
    "margin_quantiles",
    "marginal_likelihood_bound",
    "match_weights",
    "matched_mode_connectivity",
    "matrix_distances",
    "matrix_norms",
    "mean_corruption_error",
    "measure",
    "memorization",
    "memorization_removal",
    "mixture_code",
    "mutual_information_binned",
    "mutual_information_kde",
    "negative_entropy",
    "neural_collapse",
    "normalized_margin",
    "normalized_margin_quantiles",
    "norms_over_margin",
    "ood_auroc",
    "over_examples",
    "pac_bayes_bound",
    "pac_bayes_optimized",
    "pacbayes_measures",
    "pacbayes_sigma",
    "parameter_norms",
    "participation_ratio",
    "path_norm",
    "perturbation_response",
    "power_law",
    "prequential_code",
    "rademacher_bound",
    "ratt_bound",
    "relative_flatness",
    "rescaled",
    "rescaling",
    "sam_sharpness",
    "scale_dependence",
    "sensitive_weights",
    "sharpness_alpha",
    "sharpness_measures",
    "sign_correlation",
    "simplicity_bias",
    "soft_error",
    "spectral_margin_bound",
    "spectral_norm",
    "stability_ratio",
    "stiffness",
    "subspace_compression_bound",
    "tangent_kernel",
    "train_coherence",
    "train_stiffness",
    "two_part_code",
    "variational_code",
    "vc_bound",
    "vc_dimension",
    "weight_spectrum",
]
