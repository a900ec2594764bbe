"""What trains on a device: every method, model, optimizer and schedule of the configuration folder, and mixtures."""

from tests.helpers.choices import choices, needs

_CHOSEN = [
    *(("mlp", method, "adam", "cosine") for method in choices("regularization")),
    *((model, "none", "momentum", "constant") for model in choices("model")),
    *(("mlp", "none", optimizer, "cosine") for optimizer in choices("optimizer")),
    *(("mlp", "none", "momentum", scheduler) for scheduler in choices("scheduler")),
    ("cnn", "batch_norm", "adam", "cosine"),
    ("cnn", "manifold_mixup", "adam", "cosine"),
    ("cnn", "adversarial_training", "adam", "cosine"),
    ("resnet18", "stochastic_depth", "momentum", "cosine"),
    ("gru", "dropout", "adam", "cosine"),
]
# model, method, optimizer, scheduler
CASES = [each for each in dict.fromkeys(_CHOSEN) if needs(*each[:2]) is not None]


def overrides(model: str, method: str, optimizer: str, scheduler: str) -> list[str]:
    """The overrides of a case."""
    chosen = {"model": model, "regularization": method, "optimizer": optimizer, "scheduler": scheduler}
    return [*(f"{group}={name}" for group, name in chosen.items()), *(needs(model, method) or ())]
