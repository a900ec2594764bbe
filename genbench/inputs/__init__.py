"""Changes of inputs: augmentations, adversarial attacks and common corruptions."""
