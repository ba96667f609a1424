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
LOWEST_VENV := .venv-lowest
LOWEST_TESTS ?= $(addprefix tests/,analysis distributions inference io kernels mixtures ood pipeline report scikit_learn test_saved_fits.py)

.PHONY: example docs test pytest test-gpu test-lowest lint typecheck fuzz torture sanitize machine-code bench dist test-wheel clean

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet -e '.[cpu,examples,dev]'
	touch $@

# make example SEED=7 draws other data and networks; ARGS takes any option of fastdens analyze.
example: $(VENV)/.installed
	$(VENV)/bin/python examples/resnet_analysis.py --output report --overwrite --seed $(SEED) $(ARGS)

# The site, in build/docs/html: no network is needed, notebooks are run, and a warning is an error. A fresh environment,
# for autosummary looks for names in the pages of the environment that it is given.
docs: $(VENV)/.installed
	rm -rf build/docs/html
	$(VENV)/bin/python -m sphinx --fresh-env --fail-on-warning --keep-going -d build/docs/doctrees docs build/docs/html

test: lint typecheck pytest

# In JOBS processes, each of one thread: where more threads than cores wait for each other, all are slow.
pytest: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n $(JOBS) --dist worksteal

lint: $(VENV)/.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

# mypy follows real directories only, so it reads a copy that is laid out as the package installs; with it a program of a
# user's, which pyright reads as well.
typecheck: $(VENV)/.installed
	rm -rf build/typecheck && mkdir -p build/typecheck
	cp -r fastdens build/typecheck/fastdens && cp -r kernels build/typecheck/fastdens/kernels
	cp tests/typing/user.py tests/typing/pyrightconfig.json build/typecheck
	cd build/typecheck && ../../$(VENV)/bin/mypy --config-file ../../pyproject.toml -p fastdens -m user
	$(VENV)/bin/pyright --project build/typecheck --pythonpath $(VENV)/bin/python

# Every long command killed at random moments and run again to the same bytes: a thousand times, where `make test` does
# so a hundred times.
torture: $(VENV)/.installed
	FASTDENS_TORTURE=1000 FASTDENS_KILLS=100 $(VENV)/bin/python -m pytest -o timeout=7200 tests/torture \
	    tests/activations/test_sharing.py tests/analysis/test_certify_together.py

# The `gpu` tests of the kernels with no GPU, on the compiler's own intermediate code: out-of-bounds accesses and races.
# `make sanitize SANITIZE_TESTS=tests/sanitizer` takes a minute: every kernel once, and faults that must be found.
sanitize: $(SANITIZE_VENV)/.installed
	$(SANITIZE_VENV)/bin/python -m ttsem.sanitize pytest -m 'gpu and not unsanitized' $(SANITIZE_TESTS)

# The tests of the kernels and the estimators that need a GPU.
test-gpu: $(VENV)/.installed
	$(VENV)/bin/python -m pytest -m gpu

# Tests beside the lowest packages that pyproject.toml allows.
test-lowest: $(LOWEST_VENV)/.installed
	OMP_NUM_THREADS=1 $(LOWEST_VENV)/bin/python -m pytest -m 'not slow' $(LOWEST_TESTS)

$(LOWEST_VENV)/.installed: pyproject.toml $(VENV)/.installed
	$(VENV)/bin/uv venv --quiet --clear --python $(PYTHON) $(LOWEST_VENV)
	$(VENV)/bin/uv pip compile --quiet --python $(LOWEST_VENV) --only-binary :all: --resolution lowest-direct \
	    $(addprefix --extra ,analysis cpu diagnostics examples ood sklearn storage) \
	    --output-file $(LOWEST_VENV)/requirements.txt pyproject.toml
	$(VENV)/bin/uv pip install --quiet --python $(LOWEST_VENV) -r $(LOWEST_VENV)/requirements.txt \
	    pytest pytest-timeout hypothesis
	$(VENV)/bin/uv pip install --quiet --python $(LOWEST_VENV) --no-deps --editable .
	touch $@

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

$(BENCH_VENV)/.installed: pyproject.toml benchmarks/requirements-peers.txt benchmarks/requirements-peers-alone.txt
	$(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/python -m pip install --quiet -e '.[cpu,bench]' -r benchmarks/requirements-peers.txt
	$(BENCH_VENV)/bin/python -m pip install --quiet --no-deps -r benchmarks/requirements-peers-alone.txt
	touch $@

# All rows, all libraries, and the tables of the documentation and of README. ARGS=--quick is short.
bench: $(BENCH_VENV)/.installed
	$(BENCH_VENV)/bin/python -m fastdens bench --output docs/benchmark --overwrite $(ARGS)
	$(BENCH_VENV)/bin/python -m benchmarks.readme

# The sdist, and the wheel that is built from it: of one commit, always the same wheel.
dist: $(VENV)/.installed
	rm -rf dist
	SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct)} $(VENV)/bin/python -m build

# That wheel in empty environments, beside the lowest and the newest packages, on each Python 3.11 to 3.13 there is.
# ARGS="--python python3.12 --packages lowest" makes one of them.
test-wheel: dist
	$(VENV)/bin/python -m tests.wheels dist $(ARGS)

clean:
	rm -rf $(VENV) $(BENCH_VENV) $(LOWEST_VENV) $(SANITIZE_VENV) build dist *.egg-info
