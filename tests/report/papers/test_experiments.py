"""Experiments of papers as they compose."""

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from genbench import config
from genbench.report.papers import experiments


def test_composing_leaves_what_hydra_does_in_the_process():
    """A command that composes papers may be one of Hydra's own, and other code may have initialized it."""
    place = config.folder()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(place), version_base="1.3"):
        before = GlobalHydra.instance().hydra
        (found,) = experiments.composed([place / "experiment" / "shwartz2017.yaml"], [place])
        assert GlobalHydra.instance().hydra is before
        composed = compose("train", ["experiment=shwartz2017"])
    assert not GlobalHydra.instance().is_initialized()
    assert (found.choice, found.name, found.runs) == ("shwartz2017", composed.name, 32)
    assert list(found.nodes["claims"]["rules"]) == list(composed.claims.rules)
