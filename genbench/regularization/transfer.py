"""Transfer from a source task."""

from typing import Any

from torch import nn

from genbench import records
from genbench.checks import check_choice
from genbench.config import ConfigError
from genbench.models.slots import Masked
from genbench.records.weights import file_of, matched, read_state
from genbench.regularization.base import Method

_SOURCE = "regularization transfer: source"
_CONTENT = "sha256:"  # a source that is known by its content alone, as records have it


class Transfer(Method):
    """Starts from the weights of a network that was trained on another task, and trains ``all`` of them or the
    ``head`` alone (Yosinski et al. 2014, arXiv 1411.1792).

    Weights are matched by the names of the network's state dict, after a prefix that a wrapper has put before them
    (``model.``) is taken off. All but the head, the module ``head``, must fit; a head of another shape, as for another
    number of classes, or that the source lacks stays as it was initialized. Batch statistics come along, the rates of
    dropout and stochastic depth do not. A record names the source by the digest of its weights, so that the same
    weights elsewhere are the same run.

    Args:
        source: a run's folder or that of an experiment of one run; a file of weights, safetensors too, or a checkpoint
            of Lightning's; a model of the Hugging Face hub, ``hf://owner/name``, ``hf://owner/name@revision`` or
            ``hf://owner/name/file``, or a folder of one: see :func:`genbench.records.weights.file_of`. None for the
            network's own initial weights, the row to compare with.
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
    """Settings whose ``source`` is named by the digest of its weights; ``name`` is that setting, for messages."""
    source = settings["source"]
    if source is not None and not isinstance(source, str):
        raise ConfigError(f"{name} is {source!r}; accepted: null, or a text that names weights")
    if source is None or source.startswith(_CONTENT):
        return settings
    return {**settings, "source": _CONTENT + records.file_digest(file_of(source, name))[:12]}


def start_from(net: nn.Module, source: str, name: str, *, head: str | None = None) -> None:
    """Give a network the weights of a source; of one that is known by its content alone they stay as they are.

    The rates of dropout and stochastic depth are the network's own. So is all whose name begins with ``head``, if the
    source lacks any of it or has it in another shape.

    Raises:
        ConfigError: weights that cannot be read, or do not fit, with their names.
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
