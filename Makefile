# Two commands: `make evaluate` shows it working, `make test` shows that it is right.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
READY := $(VENV)/.ready
THREADS := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
DECODERS := greedy vcd var var:tau=4.3 vhr vista vista:strength=0.05
LIMIT ?= 100

.PHONY: evaluate test lint setup clean
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
	$(THREADS) $(BIN)/pytest -n 2 --dist loadfile --durations 10

clean:
	rm -rf $(VENV) runs build *.egg-info
