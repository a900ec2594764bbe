"""A curriculum in the order of a teacher's losses."""

import pytest
import torch
import torch.nn.functional as F

from genbench.checks import ConfigError
from genbench.models import MLP
from genbench.regularization.curriculum import Curriculum
from genbench.rng import StepRandom
from genbench.runs import execute, plan, subject

X = torch.randn(10, 1, 6, generator=torch.Generator().manual_seed(1))
Y = torch.arange(10) % 3
QUIET = ("callbacks.gap.every_n_epochs=null", "~callbacks.weight_norms", "~callbacks.measures")


def mlp(seed, **settings):
    torch.manual_seed(seed)
    return MLP(input_shape=(1, 6), classes=3, width=7, **settings)


@pytest.mark.parametrize(("progress", "count"), [(0.0, 2), (0.25, 6), (0.5, 10)])
def test_the_loss_is_the_networks_over_what_is_easiest_for_the_teacher(tmp_path, progress, count):
    teacher, net = mlp(0), mlp(1)
    torch.save(teacher.state_dict(), tmp_path / "w.pt")
    method = Curriculum(source=str(tmp_path / "w.pt"), start=0.2, end=0.5)
    method.build(net)
    with torch.no_grad():
        for p in net.parameters():  # a network in training; the teacher stays what it is
            p.add_(1)
        theirs, ours = (F.cross_entropy(each(X), Y, reduction="none") for each in (teacher, net))
        method.after_step([], progress)
        x, y = method.transform(net, X, Y, StepRandom(0, 0))
        easiest = theirs.argsort()[:count]
        assert set(easiest.tolist()) != set(ours.argsort()[:count].tolist()) or count == 10
        assert float(F.cross_entropy(net(x), y)) == pytest.approx(float(ours[easiest].mean()), rel=1e-5)


def test_the_teacher_must_fit_with_its_head(tmp_path):
    torch.save(MLP(input_shape=(1, 6), classes=4, width=7).state_dict(), tmp_path / "w.pt")
    with pytest.raises(
        ConfigError, match=r"^regularization curriculum: source does not fit: head.weight \(4, 7\), here"
    ):
        Curriculum(source=str(tmp_path / "w.pt"), start=0.2, end=0.5).build(mlp(0))


def test_a_run_by_the_scores_of_a_run(configure, tmp_path):
    first = execute.run(configure(*QUIET, "regularization=[]"))
    folder = tmp_path / "runs" / first["experiment"] / first["run_id"]
    chosen = configure(
        *QUIET, "regularization=curriculum", f"regularization.curriculum.source={folder}", "trainer.max_steps=9"
    )
    record = execute.run(chosen)
    assert record["status"] == "completed", record["error"]
    assert record["config"]["regularization"]["curriculum"]["source"] == f"sha256:{first['files']['weights.pt'][:12]}"
    untaught = plan.plan(configure(*QUIET, "regularization=curriculum", "trainer.max_steps=9"))
    assert untaught.run_id != record["run_id"]
    mine = tmp_path / "runs" / record["experiment"] / record["run_id"]
    (folder / "weights.pt").unlink()  # what was trained needs its teacher no more
    given = {"data": {}, "model": {}, "initial": None, "key": None, "device": "cpu", "trust": False}
    assert subject.load({"checkpoint": str(mine), **given})
    weights = torch.load(mine / "weights.pt", weights_only=True)
    assert not any("teacher" in name for name in weights)
