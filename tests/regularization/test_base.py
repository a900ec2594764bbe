import pytest

from genbench.records import SCALE_FREE
from genbench.regularization.base import Method
from genbench.runs import execute


def test_a_method_with_a_loss_of_its_own_alters_the_loss():
    class Plain(Method):
        pass

    class Other(Method):
        def loss(self, output, y):
            return output.mean()

    class Named(Other):
        alters = "trained on the mean output, another loss"

    assert [kind.alters for kind in (Plain, Other, Named)] == [
        "",
        "trained on another loss",
        "trained on the mean output, another loss",
    ]


@pytest.mark.parametrize(
    ("chosen", "altered"),
    [
        ("l2", {}),
        ("[batch_norm,l2]", {"batch_norm": SCALE_FREE}),
        ("mixup", {"mixup": "trained on mixed targets, another loss"}),
    ],
)
def test_a_record_says_why_raw_measures_may_not_be_compared(configure, chosen, altered):
    record = execute.run(configure(f"regularization={chosen}", "trainer.max_steps=9", "logger=[]"))
    assert record["altered"] == altered
