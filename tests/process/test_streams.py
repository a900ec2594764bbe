import io
import sys

import pytest

from genbench.process import streams


@pytest.mark.parametrize(
    ("encoding", "text", "shown"),
    [
        ("ascii", "λ₁ 0.5 ±0.1 −3 é ᵃ 中 ──", "L1 0.5 ~0.1 -3 e a ? --"),
        ("iso-8859-1", "λ₁ 0.5 ±0.1 −3 é", "L1 0.5 ±0.1 -3 é"),
        ("utf-8", "λ₁ 中", "λ₁ 中"),
    ],
)
def test_what_an_encoding_lacks_is_replaced_by_signs_of_the_same_width(monkeypatch, encoding, text, shown):
    buffer = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(buffer, encoding=encoding, errors="strict"))
    streams.lenient()
    sys.stdout.write(text)
    sys.stdout.flush()
    assert buffer.getvalue().decode(encoding) == shown
    assert len(shown) == len(text)
