"""Inner products of rows against the plain product, whatever fits into memory."""

import pytest
import torch

import genbench.measures.gram as module
from genbench.measures.gram import gram


@pytest.mark.parametrize("fit", [1, 2, 5, 6, 13, 100])
@pytest.mark.parametrize("part", [1, 3, 9])
@pytest.mark.parametrize("entries", [7, 21, 10**6])
def test_all_products_of_rows_that_come_in_parts(monkeypatch, fit, part, entries):
    generator = torch.Generator().manual_seed(0)
    sources = [torch.randn(n, 7, dtype=torch.float64, generator=generator) for n in (5, 1, 8)]
    monkeypatch.setattr(module, "room", lambda device: fit * 4 * 8 * 7)
    monkeypatch.setattr(module, "_ENTRIES", entries)
    asked = []

    def rows(index):
        def read():
            asked.append(index)
            return iter(sources[index].split(part))

        return read

    given = [(len(source), rows(index)) for index, source in enumerate(sources)]
    found = gram(given, size=7, device=torch.device("cpu"))
    whole = torch.cat(sources)
    torch.testing.assert_close(found, whole @ whole.T, rtol=1e-12, atol=1e-12)
    assert torch.equal(found, found.T)
    assert asked.count(0) <= -(-5 // fit)  # a source whose products are all known is not asked again
    if fit >= 14:
        assert asked == [0, 1, 2]


def test_half_precision_is_multiplied_in_double():
    x = torch.randn(4, 9, generator=torch.Generator().manual_seed(0)).bfloat16()
    found = gram([(4, lambda: iter([x]))], size=9, device=torch.device("cpu"))
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, x.double() @ x.double().T, rtol=1e-12, atol=1e-12)
