import pytest
import torch
import torch.nn.functional as F

from genbench.models import CNN, use_draw
from genbench.models.embedded import Embedded
from genbench.regularization import Mixup
from genbench.regularization.base import in_order
from genbench.regularization.bootstrapping import Bootstrapping
from genbench.rng import StepRandom
from genbench.training.lane import Lane

X, Y = torch.randn(8, 1, 40, dtype=torch.float64), torch.arange(8) % 3


def network(**settings):
    torch.manual_seed(0)
    return CNN(**{"input_shape": (1, 40), "classes": 3, "width": 4, **settings}).double()


def corrected(net, draw, y=Y, **settings):
    x, found = Bootstrapping(**{"share": 0.2, "prediction": "hard", **settings}).transform(net, X, y, draw)
    assert x is X
    return found


@pytest.mark.parametrize("prediction", ["hard", "soft"])
def test_the_loss_is_that_of_the_paper(prediction):
    """−Σ (β t + (1 − β) z) log q, with β = 0.8, for one-hot z and for probabilities that are constants."""
    net, draw = network(), StepRandom(0, 0)
    log_q = net(X).log_softmax(1)
    z = F.one_hot(log_q.argmax(1), 3) if prediction == "hard" else log_q.exp().detach()
    true = -((0.8 * F.one_hot(Y, 3) + 0.2 * z) * log_q).sum(1).mean()
    loss = F.cross_entropy(net(X), corrected(net, draw, prediction=prediction))
    torch.testing.assert_close(loss, true)
    params = list(net.parameters())
    for a, b in zip(torch.autograd.grad(loss, params), torch.autograd.grad(true, params), strict=True):
        torch.testing.assert_close(a, b)


def test_with_mixup_the_corrected_targets_are_mixed():
    """The objective of Arazo et al. 2019 with a share that is the same for all: λ ℓ_p + (1 − λ) ℓ_q, each with the
    prediction for the unmixed input."""
    net = network()
    lane = Lane(net, in_order({"mixup": Mixup(alpha=1.0), "a": Bootstrapping(share=0.3, prediction="hard")}), seed=4)
    objective = lane.gradient_step(X, Y, draw=StepRandom(4, 9), lr=0.0, backward=lambda loss: loss.backward())
    share, partner = float(StepRandom(4, 9).beta("mixup.share", 1.0)), StepRandom(4, 9).permutation("mixup.partner", 8)
    z = net(X).argmax(1)
    output = net(share * X + (1 - share) * X[partner])

    def both(y, z):
        return 0.7 * F.cross_entropy(output, y) + 0.3 * F.cross_entropy(output, z)

    true = share * both(Y, z) + (1 - share) * both(Y[partner], z[partner])
    torch.testing.assert_close(objective, true.detach())


def test_predictions_have_the_masks_and_the_batch_of_the_step_and_leave_no_trace():
    net, draw = network(dropout=0.5, normalization="batch_norm"), StepRandom(1, 2)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    found = corrected(net, draw, share=1.0, prediction="soft")
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert net.training
    assert not found.requires_grad
    use_draw(net, draw)
    torch.testing.assert_close(found, net(X).softmax(1).detach())


def test_the_ends_of_the_share_and_soft_targets():
    net, draw = network(), StepRandom(0, 0)
    assert torch.equal(corrected(net, draw, share=0), F.one_hot(Y, 3).double())
    assert torch.equal(corrected(net, draw, share=1), F.one_hot(net(X).argmax(1), 3).double())
    soft = torch.rand(8, 3, dtype=torch.float64).softmax(1)
    torch.testing.assert_close(corrected(net, draw, soft) - 0.8 * soft, 0.2 * corrected(net, draw, share=1))


def test_inputs_may_be_tokens():
    net = Embedded(CNN(input_shape=(2, 40), classes=3, width=4), vocabulary=5, channels=2)
    x = torch.randint(5, (8, 40))
    same, y = Bootstrapping(share=0.2, prediction="hard").transform(net, x, Y, StepRandom(0, 0))
    assert same is x
    torch.testing.assert_close(y, 0.8 * F.one_hot(Y, 3) + 0.2 * F.one_hot(net(x).argmax(1), 3))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"share": 1.5}, "Bootstrapping: share is 1.5"),
        ({"prediction": "sure"}, "bootstrapping: prediction is 'sure'; accepted: hard, soft"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Bootstrapping(**{"share": 0.2, "prediction": "hard", **settings})
