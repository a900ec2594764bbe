from genbench.measures import Estimate
from genbench.report.estimates import remark


def test_how_a_search_went_is_told_where_it_has_not_converged():
    note = "search: 8 starts, 6 reached it, the lowest 0.03; on 1,024 of 4,000 examples"
    assert remark(Estimate(1.0, converged=True, note=note)) == "on 1,024 of 4,000 examples"
    assert remark(Estimate(1.0, converged=False, note=note)) == f"not converged; {note}"
    assert remark(Estimate(1.0, converged=True, note="search: 8 starts, 8 reached it")) == ""
    assert remark(Estimate(None, note="undefined: search: no")) == "undefined: search: no"
