# make quickstart   venv, install, train on the embedded faces, verify, report
# make test         venv, install, run all tests
# make oldest       the same on the oldest packages that setup.cfg admits (Python 3.11)
# make lint         ruff and mypy
# make docs         the pages as a site: docs/_site/README.html
# make gpu          what only a GPU can show: tests/gpu and benches; nothing is installed
# make bench        the measurements of docs/, as ratios
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SEED ?= 0
JOBS ?= 2

.PHONY: quickstart test oldest lint docs bench gpu mxnet clients clean

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# Only what a run needs.
$(VENV)/.run: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[quickstart,report]"
	touch $@

# And what tests and lint need.
$(VENV)/.dev: $(VENV)/.run
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[quickstart,report,onnx,align,search,onnx2torch,timm,wandb,docs,dev]"
	touch $@

# The real mxnet cannot live beside NumPy 2: it gets an environment of its own, to check our files.
# Its last release needs Python below 3.12; elsewhere its tests say that they were skipped.
mxnet: .venv-mxnet/.done
.venv-mxnet/.done:
	@if $(PYTHON) -c 'import sys; sys.exit(sys.version_info >= (3, 12))'; then \
	  $(PYTHON) -m venv .venv-mxnet && \
	  .venv-mxnet/bin/pip install --quiet --disable-pip-version-check mxnet==1.9.1 numpy==1.23.5 && touch $@; \
	else echo "mxnet 1.9.1 needs Python < 3.12: its cross-checks will be skipped"; fi

# insightface brings its own pins: its client checks our ONNX files from an environment of its own.
clients: .venv-insightface/.done
.venv-insightface/.done:
	$(PYTHON) -m venv .venv-insightface
	.venv-insightface/bin/pip install --quiet --disable-pip-version-check "insightface>=2"
	touch $@

quickstart: $(VENV)/.run
	$(BIN)/arcface-plus train configs/quickstart.yaml --overwrite --seed $(SEED)

# One thread a worker: the sums of small tests gain nothing from more, and fight over the cores.
test: $(VENV)/.dev mxnet clients
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

# Every `name>=version` of setup.cfg installed as `name==version`, so that the minima are true.
oldest: .venv-oldest/.done
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -n $(JOBS) --dist worksteal
.venv-oldest/.done: setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv-oldest
	sed -n 's/^    \(.*\)>=/\1==/p' setup.cfg > .venv-oldest/pins.txt
	.venv-oldest/bin/pip install --quiet --disable-pip-version-check -c .venv-oldest/pins.txt \
	  -e ".[quickstart,report,onnx,align,search,onnx2torch,timm,wandb,docs,dev]"
	touch $@

docs: $(VENV)/.dev
	$(BIN)/python -m sphinx -q -E -W -c docs . docs/_site

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Each is a ratio or a limit measured in one run; docs/ quotes them. About an hour; tables are in
# build/bench as Markdown and JSON. PEER=…/recognition/arcface_torch is measured beside.
bench: $(VENV)/.dev mxnet
	$(BIN)/python tools/bench/run.py $(if $(PEER),--peer $(PEER))

# From the source tree, with the python that has torch: PYTHON=… make gpu PEER=…/recognition/arcface_torch
gpu:
	$(PYTHON) tools/gpu_check.py $(if $(PEER),--peer $(PEER))

clean:
	rm -rf $(VENV) .venv-mxnet .venv-insightface .venv-oldest build *.egg-info
