PYTHON ?= python3
SEED ?= 0
ARGS ?=
VENV := .venv
BENCH_VENV := .venv-bench

.PHONY: example test lint typecheck bench clean

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet -e '.[cpu,examples,dev]'
	touch $@

# make example SEED=7 draws other data and networks; ARGS takes any option of fastdens analyze.
example: $(VENV)/.installed
	$(VENV)/bin/python examples/resnet_analysis.py --output report --overwrite --seed $(SEED) $(ARGS)

test: lint typecheck
	$(VENV)/bin/python -m pytest

lint: $(VENV)/.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

# mypy follows real directories only, so it reads a copy that is laid out as the package installs.
typecheck: $(VENV)/.installed
	rm -rf build/typecheck && mkdir -p build/typecheck
	cp -r fastdens build/typecheck/fastdens && cp -r kernels build/typecheck/fastdens/kernels
	cd build/typecheck && ../../$(VENV)/bin/mypy --config-file ../../pyproject.toml -p fastdens

$(BENCH_VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/python -m pip install --quiet -e '.[cpu,bench]'
	$(BENCH_VENV)/bin/python -m pip install --quiet --no-deps gmm-gpu==0.2.8 tgmm==0.4.3 dpgmm==0.2.0
	touch $@

bench: $(BENCH_VENV)/.installed
	$(BENCH_VENV)/bin/python -m benchmarks

clean:
	rm -rf $(VENV) $(BENCH_VENV) build dist *.egg-info
