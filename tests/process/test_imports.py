"""What the processes of a command import, each in a process that has imported nothing."""

import subprocess
import sys
import textwrap

import pytest


def printed(program: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_lightning_comes_without_the_libraries_that_nothing_of_it_uses():
    """If this fails after an update, torchmetrics reads other names: the start is slower by a quarter, nothing else."""
    heavy = ("matplotlib", "scipy.signal", "scipy.stats", "scipy.optimize")
    found = printed(
        f"""
        import sys
        from genbench.process.imports import sparing
        with sparing():
            import genbench.runs.execute
        print("torchmetrics" in sys.modules, [name for name in {heavy} if name in sys.modules])
        """
    )
    assert found == ["True []"]


def test_metrics_draw_as_if_nothing_had_been_spared():
    found = printed(
        """
        import torch
        from genbench.process.imports import sparing
        with sparing():
            from torchmetrics import MetricCollection
            from torchmetrics.classification import BinaryAccuracy, BinaryPrecision
        import matplotlib
        matplotlib.use("Agg")
        from matplotlib.axes import Axes
        from matplotlib.figure import Figure
        for metric in (BinaryAccuracy(), MetricCollection([BinaryAccuracy(), BinaryPrecision()])):
            metric.update(torch.tensor([0.2, 0.7]), torch.tensor([0, 1]))
        figure, axes = metric.plot(together=True)
        print(type(figure) is Figure, type(axes) is Axes)
        print(metric.plot(together=True, ax=axes)[1] is axes)
        try:
            metric.plot(together=True, ax="elsewhere")
        except ValueError as error:
            print("matplotlib axis" in str(error))
        """
    )
    assert found == ["True True", "True", "True"]


@pytest.mark.parametrize(
    "use",
    [
        "import matplotlib; matplotlib.rcParams['font.size']",
        "import matplotlib.dates; matplotlib.dates.date2num",
        "from matplotlib import pyplot; pyplot.subplots",
        "import scipy.signal; scipy.signal.convolve",
        "import scipy.signal.windows; scipy.signal.windows.hamming",
        "from scipy.signal import hilbert",
        "from importlib.util import find_spec; assert find_spec('matplotlib') and find_spec('scipy.signal')",
    ],
)
def test_another_use_gets_the_module_itself(use):
    found = printed(
        f"""
        import sys
        from genbench.process.imports import sparing
        with sparing():
            {use}
        {use}
        print([name for name, module in sys.modules.items() if type(module).__name__ == "_StandIn"])
        """
    )
    assert found == ["[]"]


def test_collecting_goes_on_after_imports_and_passes_them_over():
    found = printed(
        """
        import gc
        from genbench.process.imports import without_collecting
        with without_collecting():
            print(gc.isenabled())
            import fractions
        frozen = gc.get_freeze_count()
        print(gc.isenabled(), frozen > 1_000)
        with without_collecting():  # in the next run of the same process
            import fractions
            garbage = []
            garbage.append(garbage)
        print(gc.get_freeze_count() == frozen)
        """
    )
    assert found == ["False", "True True", "True"]
