# Each target does its own set-up: nothing but Python 3.11 and pip is needed.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: demo test test-jobs test-servers test-without-ray check chaos gpu bench docs clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    the whole path on the embedded dataset: prepare, train, evaluate, register"
	@echo "make test    all tests but chaos and gpu"
	@echo "make check   lint, types, fast tests"
	@echo "make chaos   jobs that end as they should whatever is killed under them"
	@echo "make gpu     training, sampling and jobs on a GPU, compared with a CPU; with DATA=folder of the real images the"
	@echo "             GPU's records too (state in gpu-records; call again to go on)"
	@echo "make docs    the documentation with the API of every room, in site/"
	@echo "make bench   measured comparisons (DATA=folder of the real images adds the preparation benchmark)"

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), f"Python 3.11 or newer is needed, got {sys.version}"'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(INSTALLED)

demo: $(INSTALLED)
	$(BIN)/lwddpm run jobs/demo.yaml
	$(BIN)/lwddpm sample models:/lw-ddpm-demo@candidate --count 64 --out samples

# Tests that start Ray or a server wait for it much of their time, so others run beside them.
test: $(INSTALLED)
	@echo "three parts of the tests side by side; each is printed when it has ended, the last after 10 to 15 minutes"
	@$(MAKE) --no-print-directory --jobs=3 --keep-going $(if $(filter output-sync,$(.FEATURES)),--output-sync=target) \
		test-jobs test-servers test-without-ray

# jobs on one Ray cluster that the tests share
test-jobs: $(INSTALLED)
	$(BIN)/python -m pytest -m "cluster and not chaos and not gpu" tests/kinds tests/cluster

# command lines, heads and job servers, each with a Ray of its own
test-servers: $(INSTALLED)
	$(BIN)/python -m pytest -m "cluster and not chaos and not gpu" --ignore=tests/kinds --ignore=tests/cluster

test-without-ray: $(INSTALLED)
	$(BIN)/python -m pytest -m "not cluster and not chaos and not gpu"

check: $(INSTALLED)
	$(BIN)/ruff check platform tests benchmarks jobs dashboards docs
	$(BIN)/ruff format --check platform tests benchmarks jobs dashboards docs
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest -m "not cluster and not browser and not chaos and not gpu"

chaos: $(INSTALLED)
	$(BIN)/python -m pytest tests/chaos -m chaos

gpu: $(INSTALLED)
	$(BIN)/python -m pytest tests/gpu -m gpu
	$(if $(DATA),PYTHON=$(abspath $(BIN))/python benchmarks/gpu_records.sh $(DATA))

bench: $(INSTALLED)
	$(BIN)/python benchmarks/run.py $(if $(DATA),--source $(DATA))

docs: $(INSTALLED)
	$(BIN)/mkdocs build --strict

clean:
	rm -rf .venv
