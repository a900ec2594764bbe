import pytest
import torch
import torch.nn.functional as F

from genbench.models import MLP
from genbench.regularization import L2, SAM, Dropout, Mixup
from genbench.regularization.base import Method, in_order
from genbench.training import Lane
from tests.helpers.networks import network
from tests.helpers.runs import Blobs, gradient


def test_it_takes_the_gradient_at_the_worst_point_of_the_ball():
    x, y = Blobs().splits["train"]
    lane = Lane(network(), [SAM(rho=0.2)], seed=0)
    before = [p.detach().clone() for p in lane.trained]
    measured = gradient(lane, x, y)
    assert all(torch.equal(p, q) for p, q in zip(lane.trained, before, strict=True))

    net = network()
    grads = torch.autograd.grad(F.cross_entropy(net(x), y), list(net.parameters()))
    norm = torch.cat([g.flatten() for g in grads]).norm()
    with torch.no_grad():
        for p, g in zip(net.parameters(), grads, strict=True):
            p += 0.2 * g / norm
    expected = torch.autograd.grad(F.cross_entropy(net(x), y), list(net.parameters()))
    for g, reference in zip(measured, expected, strict=True):
        torch.testing.assert_close(g, reference, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("m", [1, 2, 8, 16])
def test_each_m_examples_have_a_perturbation_of_their_own(m):
    x, y = (t[:16] for t in Blobs().splits["train"])
    measured = gradient(Lane(network(), [L2(strength=0.01), SAM(rho=0.2, m=m)], seed=0), x, y)
    net = network()
    params = list(net.parameters())

    def slopes(rows):
        loss = F.cross_entropy(net(x[rows]), y[rows]) + 0.01 * sum(p.square().sum() for p in params)
        return torch.autograd.grad(loss, params)

    expected = [torch.zeros_like(p) for p in params]
    for start in range(0, 16, m):
        rows = slice(start, start + m)
        kept, grads = [p.detach().clone() for p in params], slopes(rows)
        norm = torch.cat([g.flatten() for g in grads]).norm()
        with torch.no_grad():
            for p, g in zip(params, grads, strict=True):
                p += 0.2 * g / norm
        for total, g in zip(expected, slopes(rows), strict=True):
            total += g * m / 16
        with torch.no_grad():
            for p, old in zip(params, kept, strict=True):
                p.copy_(old)
    for g, reference in zip(measured, expected, strict=True):
        torch.testing.assert_close(g, reference, rtol=1e-10, atol=1e-13)


def test_without_a_radius_blocks_give_the_gradient_of_the_batch_with_its_dropout_masks():
    x, y = (t[:16] for t in Blobs().splits["train"])

    def lane(*methods):
        torch.manual_seed(0)
        net = MLP(input_shape=(5,), classes=3, width=8).double()
        return Lane(net, [Dropout(rate=0.5), *methods], seed=3)

    plain, sam = lane(), lane(SAM(rho=0.0, m=4))
    for g, reference in zip(gradient(sam, x, y), gradient(plain, x, y), strict=True):
        torch.testing.assert_close(g, reference, rtol=1e-10, atol=1e-13)


def test_blocks_divide_the_batch():
    x, y = (t[:16] for t in Blobs().splits["train"])
    with pytest.raises(ValueError, match="m is 5, which does not divide a batch of 16 examples"):
        gradient(Lane(network(), [SAM(rho=0.1, m=5)], seed=0), x, y)
    with pytest.raises(ValueError, match="m is 0"):
        SAM(rho=0.1, m=0)


def test_it_counts_batch_statistics_once():
    x, y = Blobs().splits["train"]
    plain, sam = Lane(network(norm=True), [], seed=0), Lane(network(norm=True), [SAM(rho=0.2)], seed=0)
    for lane in (plain, sam):
        gradient(lane, x, y)
    for name, buffer in plain.network.named_buffers():
        assert torch.equal(buffer, dict(sam.network.named_buffers())[name]), name


def test_it_sees_the_same_batch_twice():
    seen = []

    class Spy(Method):
        def penalty(self, net, x, y, output, draw):
            seen.append((x.clone(), y.clone()))
            return output.sum() * 0

    x, y = Blobs().splits["train"]
    gradient(Lane(network(), in_order({"mixup": Mixup(alpha=1.0), "sam": SAM(rho=0.1), "spy": Spy()}), seed=3), x, y)
    assert len(seen) == 2
    assert torch.equal(seen[0][0], seen[1][0])
    assert not torch.equal(seen[0][0], x)


def test_on_a_quadratic_the_gradient_is_that_of_the_moved_weights():
    """L = ½ wᵀHw: the gradient at w + rho · Hw/‖Hw‖ is Hw + rho · H Hw/‖Hw‖."""
    h = torch.diag(torch.tensor([1.0, 3.0], dtype=torch.float64))
    w = torch.tensor([2.0, -1.0], dtype=torch.float64)
    (moved,) = SAM(rho=0.1).perturb([w], [h @ w])
    torch.testing.assert_close(h @ moved, h @ w + 0.1 * h @ (h @ w) / (h @ w).norm(), rtol=1e-11, atol=0)
