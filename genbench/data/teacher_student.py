"""Labels from a random network, with a known Bayes error."""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import sqrt
from typing import Any

from torch import Tensor

from genbench.checks import check_integer, check_number
from genbench.data.stream import StreamData
from genbench.rng import StepRandom

_EXAMPLES = 100_000  # examples for the estimate of the Bayes error


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """Inputs N(0, I), and classes drawn from the softmax of a teacher's outputs / ``temperature``; at 0, the largest.

    The teacher has ``depth`` hidden layers of ``width`` tanh units and weights N(0, 1 / fan-in).
    """

    classes: int
    dimension: int
    width: int
    depth: int
    temperature: float
    seed: int

    @cached_property
    def weights(self) -> list[Tensor]:
        """Weights of each layer, [inputs, outputs]."""
        sizes = [self.dimension, *[self.width] * self.depth, self.classes]
        draw = StepRandom(self.seed, 0)
        return [draw.normal(f"teacher.{i}", a, b) / sqrt(a) for i, (a, b) in enumerate(pairwise(sizes))]

    def outputs(self, x: Tensor) -> Tensor:
        """Return the teacher's outputs [n, classes] for inputs [n, dimension]."""
        *hidden, last = (w.to(x.device) for w in self.weights)
        for w in hidden:
            x = (x @ w).tanh()
        return x @ last

    def sample(self, n: int, draw: StepRandom, site: str = "stream") -> tuple[Tensor, Tensor]:
        """Draw inputs [n, 1, dimension] and classes [n]."""
        x = draw.normal(f"{site}.inputs", n, self.dimension)
        outputs = self.outputs(x)
        if self.temperature == 0:
            return x[:, None], outputs.argmax(1)
        return x[:, None], draw.classes(f"{site}.classes", (outputs / self.temperature).softmax(1))

    @cached_property
    def bayes_error(self) -> tuple[float, float]:
        """The smallest error of any classifier, E[1 − max_k p_k(x)], estimated from 100,000 inputs, and its standard
        error; both 0 at temperature 0."""
        if self.temperature == 0:
            return 0.0, 0.0
        outputs = self.outputs(StepRandom(0, 0).normal("teacher.bayes", _EXAMPLES, self.dimension))
        wrong = 1 - (outputs / self.temperature).double().softmax(1).amax(1)
        return float(wrong.mean()), float(wrong.std() / sqrt(_EXAMPLES))


class TeacherStudent(StreamData):
    """Gaussian inputs of shape (1, dimension), labelled by a random network, the teacher.

    The teacher is the best classifier, and its error is known up to a small standard error (``bayes_error``; in a
    record ``test/performance/bayes_error``). With two classes, both are equally frequent, as tanh is odd and the
    teacher has no biases.

    Args:
        dimension: dimension of the inputs, at least 1.
        teacher_classes: outputs of the teacher, at least 2.
        teacher_width: units of each hidden layer of the teacher, at least 1.
        teacher_depth: hidden layers of the teacher, at least 0; 0: a linear teacher.
        temperature: divides the teacher's outputs (of standard deviation 0.6 with one hidden layer) before the softmax
            from which labels are drawn; at least 0; 0: labels are deterministic.
        teacher_seed: seed of the teacher's weights, at least 0; independent of ``seed``.
        settings: those of :class:`genbench.data.stream.StreamData`.
    """

    name = "teacher_student"

    def __init__(
        self,
        *,
        dimension: int = 40,
        teacher_classes: int = 10,
        teacher_width: int = 100,
        teacher_depth: int = 1,
        temperature: float = 0.1,
        teacher_seed: int = 0,
        **settings: Any,
    ) -> None:
        self.classes = check_integer("data.teacher_classes", teacher_classes, least=2)
        self.source = Teacher(
            classes=teacher_classes,
            dimension=check_integer("data.dimension", dimension, least=1),
            width=check_integer("data.teacher_width", teacher_width, least=1),
            depth=check_integer("data.teacher_depth", teacher_depth, least=0),
            temperature=check_number("data.temperature", temperature, low=0),
            seed=check_integer("data.teacher_seed", teacher_seed, least=0),
        )
        super().__init__(**settings)
