"""What is measured on trained networks, and measuring several of them."""

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.utils import get_object

from genbench import records
from genbench.callbacks.splits import ALL, AUTO, SPLITS
from genbench.checks import check_choice, check_integer
from genbench.config import bind, bind_part
from genbench.measures import Estimate
from genbench.measures.base import MeasureOf, check_settings, key_prefix, names_of, needs_data
from genbench.privacy import shared
from genbench.runs import build, source
from genbench.runs.subject import Config, Subject, device_of


@dataclass(frozen=True)
class Asked:
    """What a command asks to be measured.

    Attributes:
        config: that of ``conf/measure.yaml``.
        measures: functions by name.
        parts: the name of each measure -> ``split/family/name``, under which its estimates are kept.
        settings: the name of each measure -> all settings that its values depend on.
    """

    config: Config
    measures: Mapping[str, MeasureOf]
    parts: Mapping[str, str]
    settings: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(cls, config: Config) -> "Asked":
        """Check the settings, and return what they ask.

        Raises:
            ValueError: a setting that is not accepted; in one line.
        """
        check_choice("split", config["split"], (*SPLITS, ALL))
        check_integer("threads", config["threads"], least=1, most=1024)
        if config["examples"] not in (None, AUTO):
            check_integer("examples", config["examples"], least=1, note="or auto, or null")
        device_of(config)
        bind({"measures": config["measures"], "loss": config["loss"]})
        bound = {key: bind_part(key, config[key]) for key in ("measures", "loss")}
        measures = {name: build.make(node) for name, node in config["measures"].items()}
        check_settings(measures)
        seen = {"loss": bound["loss"], **{key: config[key] for key in ("split", "examples", "seed")}}
        settings = {
            name: {"measure": bound["measures"][name], **(seen if needs_data(function) else {})}
            for name, function in measures.items()
        }
        parts = {name: f"{key_prefix(function, config['split'])}/{name}" for name, function in measures.items()}
        return cls(config, measures, parts, shared(settings))

    def of_run(self, record: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Return what the values of each measure depend on for the run of a record: the settings, the digest of its
        weights, and that of the code: the file of the measure, and all of the user's own."""
        trained = tuple(source.targets([record["config"].get(key) for key in ("data", "model", "regularization")]))
        loss = tuple(source.targets(self.config["loss"]))
        found = {}
        for name in self.measures:
            measure = tuple(source.targets(self.config["measures"][name]))
            code = records.digest([_file(measure), users_code(frozenset((*trained, *loss, *measure)))])[:16]
            weights = record["files"]["weights.pt"]
            found[name] = {"settings": self.settings[name], "weights": weights, "code": code}
        return found

    def keys(self, name: str) -> list[str]:
        """Return the metric keys of a measure, as far as they are known before it is taken."""
        prefix = key_prefix(self.measures[name], self.config["split"])
        found = [each for each in names_of(name, self.measures[name]) if "*" not in each]
        return [f"{prefix}/{each}" for each in found or [name]]


@functools.cache
def users_code(targets: frozenset[str]) -> str | None:
    """Return the digest of the user's code behind dotted names; None if all of it is genbench's or a library's."""
    return source.of(targets).digest


@functools.cache
def _file(targets: tuple[str, ...]) -> list[str]:
    """Return the digest of the file of genbench that defines a measure."""
    modules = {getattr(get_object(target), "__module__", "") for target in targets}
    return [source.of_file(str(sys.modules[name].__file__)) for name in modules if name.startswith("genbench.")]


def measure_group(
    subjects: Sequence[Subject],
    asked: Asked,
    *,
    known: Sequence[Mapping[str, Mapping[str, Estimate]]],
    keep: Callable[[int, str, dict[str, Estimate]], None],
) -> list[dict[str, Estimate] | Exception]:
    """Measure trained networks of one structure; return the estimates of each by metric key, or the error that kept it
    from being measured.

    Args:
        subjects: the networks with their data.
        asked: the measures.
        known: for each subject the estimates that there are, by the measure's name; these measures are not repeated.
        keep: called with the index of a subject, a measure's name and its estimates as soon as they are computed.
    """
    results: list[dict[str, Estimate] | Exception] = []
    for index, subject in enumerate(subjects):
        try:
            views = subject.views(asked.measures, asked.config, {})
            results.append(views.evaluate(known=known[index], keep=functools.partial(keep, index)))
        except Exception as error:
            results.append(error)
    return results
