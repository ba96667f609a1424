PYTHON ?= python3
SEED ?= 0
ARGS ?=
TARGET ?= all
SECONDS ?= 60
JOBS ?= 2
VENV := .venv
BENCH_VENV := .venv-bench
PYTHON_SANITIZE ?= python3.12
SANITIZE_VENV := .venv-sanitize
SANITIZE_TESTS ?= tests/sanitizer tests/kernels

.PHONY: example test lint typecheck fuzz torture sanitize machine-code bench clean

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet -e '.[cpu,examples,dev]'
	touch $@

# make example SEED=7 draws other data and networks; ARGS takes any option of fastdens analyze.
example: $(VENV)/.installed
	$(VENV)/bin/python examples/resnet_analysis.py --output report --overwrite --seed $(SEED) $(ARGS)

# In JOBS processes, each of one thread: where more threads than cores wait for each other, all are slow.
test: lint typecheck
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n $(JOBS) --dist worksteal

lint: $(VENV)/.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

# mypy follows real directories only, so it reads a copy that is laid out as the package installs.
typecheck: $(VENV)/.installed
	rm -rf build/typecheck && mkdir -p build/typecheck
	cp -r fastdens build/typecheck/fastdens && cp -r kernels build/typecheck/fastdens/kernels
	cd build/typecheck && ../../$(VENV)/bin/mypy --config-file ../../pyproject.toml -p fastdens

# Every long command killed at random moments and run again to the same bytes: a thousand times, where `make test` does
# so a hundred times.
torture: $(VENV)/.installed
	FASTDENS_TORTURE=1000 FASTDENS_KILLS=100 $(VENV)/bin/python -m pytest -o timeout=7200 tests/torture \
	    tests/activations/test_sharing.py tests/analysis/test_certify_together.py

# The `gpu` tests of the kernels with no GPU, on the compiler's own intermediate code: out-of-bounds accesses and races.
# `make sanitize SANITIZE_TESTS=tests/sanitizer` takes a minute: every kernel once, and faults that must be found.
sanitize: $(SANITIZE_VENV)/.installed
	$(SANITIZE_VENV)/bin/python -m ttsem.sanitize pytest -m 'gpu and not unsanitized' $(SANITIZE_TESTS)

$(SANITIZE_VENV)/.installed: pyproject.toml
	@$(PYTHON_SANITIZE) -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null || { echo \
	    "$(PYTHON_SANITIZE) is no Python 3.12 or later, which the sanitizer needs: set PYTHON_SANITIZE to one." >&2; exit 1; }
	$(PYTHON_SANITIZE) -m venv $(SANITIZE_VENV)
	$(SANITIZE_VENV)/bin/python -m pip install --quiet -e '.[sanitize]'
	touch $@

# A coverage-guided fuzzer over one reader of files, or over all of them in turn: make fuzz TARGET=npy SECONDS=600.
fuzz: $(VENV)/.installed
	$(VENV)/bin/python -c 'import atheris' 2>/dev/null || $(VENV)/bin/python -m pip install --quiet -e '.[fuzz]'
	$(VENV)/bin/python -m tests.fuzz $(TARGET) --seconds $(SECONDS)

machine-code: $(VENV)/.installed
	$(VENV)/bin/python -m fastdens.kernels.machine_code --report --output benchmarks/results/machine_code_sm90.json

$(BENCH_VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/python -m pip install --quiet -e '.[cpu,bench]'
	$(BENCH_VENV)/bin/python -m pip install --quiet --no-deps gmm-gpu==0.2.8 tgmm==0.4.3 dpgmm==0.2.0
	touch $@

bench: $(BENCH_VENV)/.installed
	$(BENCH_VENV)/bin/python -m benchmarks

clean:
	rm -rf $(VENV) $(BENCH_VENV) $(SANITIZE_VENV) build dist *.egg-info
