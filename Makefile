# The commands create .venv with the pinned dependencies if it is missing or out of date.
.PHONY: demo papers test test-cluster lint docs bench gpu clean
PYTHON ?= python3
BIN := .venv/bin
# several processes on few cores: threads that fight over them cost 5 ×
export OMP_NUM_THREADS ?= 1

demo: .venv/installed
	$(BIN)/genbench experiment=ablation hydra/launcher=packed

# the laptop version of every paper, one after the other, and the scoreboard; again: what is missing. PAPERS=NAME: that one
papers: .venv/installed
	$(BIN)/python scripts/papers.py $(PAPERS)

test: .venv/installed
	$(BIN)/pytest -n auto --dist worksteal

# launchers of joblib, submitit and Ray, in an environment of their own
test-cluster: .venv-cluster/installed
	.venv-cluster/bin/pytest -n 2 -m cluster tests/cluster

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# the site, in docs/_build/html; needs no network
docs: .venv/installed
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

bench: .venv/installed
	$(BIN)/python -m benchmarks

# what a GPU makes of it, in at most eight minutes on one card: a table, and all numbers in gpu.json
gpu: .venv/installed
	timeout 480 $(BIN)/python -m benchmarks.gpu --json=gpu.json

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

.venv-cluster/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-cluster
	.venv-cluster/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[joblib,submitit,ray]' \
		pytest pytest-timeout pytest-xdist
	touch $@

clean:
	rm -rf .venv .venv-cluster build dist runs docs/_build docs/generated
