"""What the page of benchmarks says about speed and memory: one file a claim, ratios taken within one process.

``python -m benchmarks`` runs all of them, ``python -m benchmarks.curvature --dense`` one of them, with its options.
"""
