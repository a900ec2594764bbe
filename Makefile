# Both commands create .venv with the pinned dependencies if it is missing or out of date.
.PHONY: demo test lint bench clean
PYTHON ?= python3
BIN := .venv/bin
# several processes on few cores: threads that fight over them cost 5 ×
export OMP_NUM_THREADS ?= 1

demo: .venv/installed
	$(BIN)/genbench experiment=ablation hydra/launcher=packed

test: .venv/installed
	$(BIN)/pytest -n auto

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/installed
	$(BIN)/python scripts/benchmark.py all

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv build dist runs
