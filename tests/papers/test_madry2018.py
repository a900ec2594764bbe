"""madry2018: numbers that violate a claim do not replicate it; a few steps of each row train at every scale."""

import random

import pytest

from tests.helpers.experiments import judged, node, rows, trained

METHODS, STEPS, WIDTH = "regularization", "regularization.adversarial_training.steps", "model.width"
NATURAL = "test/performance/accuracy"
FGSM, PGD, RESTARTS, FAR = (f"test/robustness/{name}" for name in ("fgsm", "pgd", "restarts", "pgd_at_50"))
PLAIN = {4: (0.94, 0.05, 0.0), 16: (0.96, 0.04, 0.0), 64: (0.97, 0.04, 0.0)}
AGAINST_FGSM = (0.9, 0.95, 0.01)
AGAINST_PGD = {4: (0.1, 0.1, 0.1), 16: (0.85, 0.45, 0.3), 64: (0.92, 0.55, 0.45)}


def trained_how(run):
    return "plain" if run[METHODS] == "none" else {1: "FGSM", 7: "PGD"}[run[STEPS]]


def numbers(run, *, at="", moved=(0.0, 0.0, 0.0), fewer=0.03, far=0.02):
    """The numbers of a run if every claim held.

    Args:
        at: how it was trained and its width, such as "PGD 64".
        moved: added to its accuracy without attack, under FGSM and under PGD.
        fewer: what ten starts take from PGD training.
        far: the accuracy of PGD training at ε = 0.5.
    """
    draw = random.Random(repr(sorted(run.items(), key=repr))).gauss
    how = trained_how(run)
    found = {"plain": PLAIN, "FGSM": dict.fromkeys(PLAIN, AGAINST_FGSM), "PGD": AGAINST_PGD}[how][run[WIDTH]]
    natural, fgsm, pgd = (
        min(1.0, max(0.0, value + draw(0, 0.003) + (more if at == f"{how} {run[WIDTH]}" else 0.0)))
        for value, more in zip(found, moved, strict=True)
    )
    restarts = max(0.0, pgd - (fewer + draw(0, 0.003) if how == "PGD" else 0.0))
    return {NATURAL: natural, FGSM: fgsm, PGD: pgd, RESTARTS: restarts, FAR: far + abs(draw(0, 0.002))}


WRONG = {
    **{f"C1 it takes little at {w}": ("C1", {"at": f"plain {w}", "moved": (0, 0.5, 0)}) for w in PLAIN},
    **{f"C2 FGSM takes nothing at {w}": ("C2", {"at": f"PGD {w}", "moved": (0, 0.5, 0)}) for w in (16, 64)},
    **{f"C2 PGD takes less than FGSM at {w}": ("C2", {"at": f"PGD {w}", "moved": (0, 0, 0.2)}) for w in (16, 64)},
    "C2 ten starts take nothing": ("C2", {"fewer": 0.0}),
    "C3 plain training resists": ("C3", {"at": "plain 64", "moved": (0, 0, 0.2)}),
    "C3 PGD training keeps little": ("C3", {"at": "PGD 64", "moved": (0, 0, -0.35)}),
    "C4 it costs nothing at 64": ("C4", {"at": "PGD 64", "moved": (0.05, 0, 0)}),
    "C4 it costs nothing at 16": ("C4", {"at": "PGD 16", "moved": (0.15, 0, 0)}),
    "C4 it costs more at 64": ("C4", {"at": "PGD 64", "moved": (-0.2, 0, 0)}),
    "C5 it learns": ("C5", {"at": "PGD 4", "moved": (0.4, 0, 0)}),
    "C5 plain training does not learn either": ("C5", {"at": "plain 4", "moved": (-0.5, 0, 0)}),
    "C6 the widest is worse": ("C6", {"at": "PGD 64", "moved": (0, 0, -0.3)}),
    "C6 the narrowest is better": ("C6", {"at": "PGD 4", "moved": (0, 0, 0.3)}),
    "C7 it resists": ("C7", {"at": "FGSM 64", "moved": (0, 0, 0.2)}),
    "C8 no leaking": ("C8", {"at": "FGSM 64", "moved": (0, -0.3, 0)}),
    "C9 the attack is too weak": ("C9", {"far": 0.2}),
}
