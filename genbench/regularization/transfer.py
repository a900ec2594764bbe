"""Transfer from a source task."""

from pathlib import Path
from typing import Any

from torch import nn

from genbench import records
from genbench.checks import check_choice
from genbench.config import ConfigError
from genbench.models.slots import Masked
from genbench.regularization.base import Method
from genbench.weights import matched, read_state, record_of

_CONTENT = "sha256:"  # a source that is known by its content alone, as records have it


class Transfer(Method):
    """Starts from the weights of a network that was trained on another task, and trains ``all`` of them or the
    ``head`` alone (Yosinski et al. 2014, arXiv 1411.1792).

    All but the head must fit; a head of another shape, as for another number of classes, stays as it was initialized.
    Batch statistics come along, the rates of dropout and stochastic depth do not. A record names the source by the
    digest of its weights, so that the same weights elsewhere are the same run.

    Args:
        source: a run's folder or that of an experiment of one run, a file of weights or a checkpoint of Lightning's;
            None for the network's own initial weights, the row to compare with.
        tune: ``all`` or ``head``.

    Raises:
        ConfigError: weights that cannot be read without trusting them, or do not fit; the names that do not.
    """

    order = 50  # after what adds parameters, before what remembers them

    def __init__(self, *, source: str | None, tune: str) -> None:
        super().__init__()
        self.source = source
        self.tunes_only_head = check_choice("regularization transfer: tune", tune, ("all", "head")) == "head"

    @staticmethod
    def identity(settings: dict[str, Any]) -> dict[str, Any]:
        source = settings["source"]
        if source is None or source.startswith(_CONTENT):
            return settings
        return {**settings, "source": _CONTENT + records.file_digest(_file(source))[:12]}

    def build(self, net: nn.Module) -> nn.Module:
        if not isinstance(getattr(net, "head", None), nn.Module):
            raise ConfigError(f"regularization transfer: {type(net).__name__} has no head")
        if self.source is not None and not self.source.startswith(_CONTENT):
            self._load(net, self.source)
        if self.tunes_only_head:
            for name, p in net.named_parameters():
                p.requires_grad_(name.startswith("head."))
        return net

    def _load(self, net: nn.Module, source: str) -> None:
        state, wanted = matched(read_state(_file(source)), net), net.state_dict()
        rates = {f"{name}.p" for name, module in net.named_modules() if isinstance(module, Masked)}
        taken, wrong = {}, []
        for name in dict.fromkeys([*wanted, *state]):
            if name in rates:
                continue
            ours, theirs = (tuple(s[name].shape) if name in s else "missing" for s in (wanted, state))
            if ours == theirs:
                taken[name] = state[name]
            elif not (name.startswith("head.") and name in wanted and name in state):
                wrong.append(f"{name} {theirs}, here {ours}")
        if wrong:
            more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
            raise ConfigError(f"regularization transfer: source does not fit: {'; '.join(wrong[:5])}{more}")
        net.load_state_dict(taken, strict=False)


def _file(source: str) -> Path:
    """The file of weights that a source names."""
    path = Path(source)
    runs = [found.parent for found in path.glob(f"*/{records.RECORD}")]
    if len(runs) > 1:
        raise ConfigError(
            f"regularization transfer: source={path.name!r} has {len(runs)} runs; accepted: one, or a folder of one"
        )
    path = runs[0] if runs else path
    if (path / records.RECORD).is_file():
        record_of(path, "regularization transfer: source")
        return path / "weights.pt"
    if not path.is_file():
        raise ConfigError(
            f"regularization transfer: source={path.name!r} is not there; accepted: a run's folder, a file of weights"
        )
    return path
