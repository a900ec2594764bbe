import pytest
from torch import nn

from genbench.regularization import EarlyStopping


def trained(method, results):
    """The epochs that training took, and the number of the epoch whose weights it ends with; 0: none yet."""
    net = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(net.weight)
    method.build(net)
    for epoch, splits in enumerate(results, 1):
        nn.init.constant_(net.weight, epoch)
        if method.after_epoch(net, splits.__getitem__):
            break
    method.finish(net, [])
    return epoch, int(net.weight)


def gaps(*values):
    return [{"train": {"accuracy": 0.5 + gap}, "val": {"accuracy": 0.5}} for gap in values]


def losses(*values):
    return [{"val": {"cross_entropy": loss}} for loss in values]


@pytest.mark.parametrize(
    ("patience", "results", "ended", "restored"),
    [
        (2, (0.0, 0.1, 0.3, 0.2, 0.3, 0.4, 0.0), 6, 4),  # the last within the limit, not the narrowest
        (2, (0.0, 0.3, 0.1, 0.3, 0.1), 5, 5),  # never two in a row
        (1, (-0.2, -0.1, 0.3), 3, 2),  # better on validation than on train is no gap
        (2, (0.5, 0.5, 0.0), 2, 2),  # none was within: the last weights stay
    ],
)
def test_by_the_gap(patience, results, ended, restored):
    method = EarlyStopping(patience=patience, criterion="gap", max_gap=0.25)
    assert trained(method, gaps(*results)) == (ended, restored)


def test_by_the_loss():
    assert trained(EarlyStopping(patience=2), losses(3.0, 2.0, 2.5, 1.0, 1.0, 1.5, 0.1)) == (6, 4)
    assert trained(EarlyStopping(patience=2), losses(float("nan"), float("nan"), 1.0)) == (2, 2)


def test_its_memory_travels_in_the_state():
    method = EarlyStopping(patience=3, criterion="gap", max_gap=0.25)
    assert trained(method, gaps(0.0, 0.1, 0.4)) == (3, 2)
    resumed = EarlyStopping(patience=3, criterion="gap", max_gap=0.25)
    resumed.build(net := nn.Linear(1, 1, bias=False))
    resumed.load_state_dict(method.state_dict())
    assert not resumed.after_epoch(net, gaps(0.4)[0].__getitem__)
    assert resumed.after_epoch(net, gaps(0.4)[0].__getitem__)
    resumed.finish(net, [])
    assert net.weight.item() == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patience": 0}, "patience is 0; accepted: an integer of at least 1"),
        ({"criterion": "accuracy"}, "criterion is 'accuracy'; accepted: loss, gap"),
        ({"max_gap": 2}, "EarlyStopping: max_gap is 2"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        EarlyStopping(**{"patience": 1, **settings})
