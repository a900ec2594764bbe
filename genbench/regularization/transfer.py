"""Transfer from a source task."""

from typing import Any

from torch import nn

from genbench import records
from genbench.checks import ConfigError, check_choice
from genbench.models.slots import Masked
from genbench.records.weights import file_of, matched, read_state
from genbench.regularization.base import Method

_SOURCE = "regularization transfer: source"
_CONTENT = "sha256:"  # prefix of a source that is known only by its digest, as in records


class Transfer(Method):
    """Starts from the weights of a network that was trained on another task, and trains ``all`` of them or the
    ``head`` alone (Yosinski et al. 2014, arXiv 1411.1792).

    Weights are matched by name after the prefix of a wrapper (``model.``) is stripped. All must fit except those of the
    module ``head``: if its shape differs, as with another number of classes, or the source lacks it, it keeps its
    initial weights. Batch statistics are copied; rates of dropout and stochastic depth are not. A record names the
    source by the digest of its weights, so that the same weights in another place are the same run.

    Args:
        source: a run's folder or that of an experiment of one run; a file of weights, safetensors too, or a checkpoint
            of Lightning's; a model of the Hugging Face hub, ``hf://owner/name``, ``hf://owner/name@revision`` or
            ``hf://owner/name/file``, or a folder of one: see :func:`genbench.records.weights.file_of`. ``None``: the
            network's own initial weights, as a control.
        tune: ``all`` or ``head``.

    Raises:
        ConfigError: weights that cannot be read safely or do not fit; the message names those that do not fit.
    """

    order = 50  # after methods that add parameters, before those that copy them

    def __init__(self, *, source: str | None, tune: str) -> None:
        super().__init__()
        self.source = source
        self.tunes_only_head = check_choice("regularization transfer: tune", tune, ("all", "head")) == "head"

    @staticmethod
    def identity(settings: dict[str, Any]) -> dict[str, Any]:
        return by_content(settings, _SOURCE)

    def build(self, net: nn.Module) -> nn.Module:
        own = [name for name, module in net.named_modules() if module is getattr(net, "head", None)]
        if not own:
            raise ConfigError(f"regularization transfer: {type(net).__name__} has no head")
        head = f"{own[0]}."  # network.head. behind an embedding
        if self.source is not None:
            start_from(net, self.source, _SOURCE, head=head)
        if self.tunes_only_head:
            for name, p in net.named_parameters():
                p.requires_grad_(name.startswith(head))
        return net


def by_content(settings: dict[str, Any], name: str) -> dict[str, Any]:
    """Return settings with ``source`` replaced by the digest of its weights; ``name`` names the setting in messages."""
    source = settings["source"]
    if source is not None and not isinstance(source, str):
        raise ConfigError(f"{name} is {source!r}; accepted: null, or a text that names weights")
    if source is None or source.startswith(_CONTENT):
        return settings
    return {**settings, "source": _CONTENT + records.file_digest(file_of(source, name))[:12]}


def start_from(net: nn.Module, source: str, name: str, *, head: str | None = None) -> None:
    """Load the weights of a source into a network; a source that is known only by its digest changes nothing.

    Rates of dropout and stochastic depth stay. So do all weights whose names begin with ``head``, if the source lacks
    one of them or has it in another shape.

    Raises:
        ConfigError: weights that cannot be read or do not fit; the message names those that do not fit.
    """
    if source.startswith(_CONTENT):
        return
    state, wanted = matched(read_state(file_of(source, name)), net, name), net.state_dict()
    left = {f"{module_name}.p" for module_name, module in net.named_modules() if isinstance(module, Masked)}
    ours, theirs = ({key: tuple(t.shape) for key, t in tensors.items()} for tensors in (wanted, state))
    own = {key for key in ours if head is not None and key.startswith(head)}
    if any(theirs.get(key) != ours[key] for key in own):
        left |= own
    keys = [key for key in dict.fromkeys([*ours, *theirs]) if key not in left]
    wrong = [
        f"{key} {theirs.get(key, 'missing')}, here {ours.get(key, 'missing')}"
        for key in keys
        if theirs.get(key) != ours.get(key)
    ]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise ConfigError(f"{name} does not fit: {'; '.join(wrong[:5])}{more}")
    net.load_state_dict({key: state[key] for key in keys}, strict=False)
