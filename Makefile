# On a machine with Python (>= 3.10) and make, everything else is set up here, in .venv:
#
#   make demo   simulate a small BIDS dataset, process it, and show what came out
#   make test   run the tests
#   make lint   check style, types and architecture
#   make env    only set up .venv
#   make docs   build the site from docs/ into build/docs
#   make browser   as root on Debian: a browser for the tests of the reports, which are skipped where there is none
#   make descriptor   write boutiques.json anew from the options
#   make image, make sif, make slurm   build and try the container image, its Apptainer image, a one-node Slurm: as root
#                on Debian or Ubuntu, some minutes each (docs/containers.md)
#
# PYTHON       the interpreter to start from (python3)
# TORCH_INDEX  a package index to take torch from (a CUDA or a CPU build); by default pip's own
# OUT          where `make demo` writes (demo)

PYTHON ?= python3
VENV ?= .venv
OUT ?= demo
TORCH_INDEX ?=
PYTEST_ARGS ?= -n auto --dist loadfile

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
READY := $(VENV)/.ready

.PHONY: env demo test lint docs browser descriptor image sif slurm
.DELETE_ON_ERROR:

env: $(READY)

# torch comes first, so that nothing else chooses its build.
$(READY): setup.cfg pyproject.toml constraints.txt
	@echo "Setting up $(VENV) from $$($(PYTHON) --version) (some minutes the first time) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) --constraint constraints.txt torch
	@$(PIP) install --constraint constraints.txt --editable '.[dev]'
	@touch $@
	@echo "$(VENV) is ready: torch $$($(BIN)/python -c 'import torch; print(torch.__version__)')."

demo: $(READY)
	@echo "Simulating a small BIDS dataset in $(OUT)/bids ..."
	@$(BIN)/python -m unibrain_bids.demo $(OUT)
	@echo "Running: unibrain-bids $(OUT)/bids $(OUT)/out participant"
	@$(BIN)/unibrain-bids $(OUT)/bids $(OUT)/out participant
	@echo "Written to $(OUT)/out:"
	@(cd $(OUT)/out && find . -type f ! -path './logs/*' | sort)
	@echo "Where to look: $(OUT)/out/sub-01.html, the report, in a browser. Below $(OUT)/out/sub-*: *_seg-aseg_dseg.nii.gz"
	@echo "over *_desc-preproc_T1w.nii.gz in any NIfTI viewer; *_morph.tsv is the table of regions."

# One thread in each test process: several torch processes on few cores slow each other down badly.
test: $(READY)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

# A stamp of its own: only who builds the site needs Sphinx.
$(VENV)/.ready-doc: $(READY)
	@$(PIP) install --constraint constraints.txt --editable '.[doc]'
	@touch $@

docs: $(VENV)/.ready-doc
	@if $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
		$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -b html docs build/docs && \
		echo "The site: build/docs/index.html"; \
	else echo "The site was not built: Sphinx needs Python 3.11 or newer."; fi

browser:
	@tools/install_browser.sh

descriptor: $(READY)
	@$(BIN)/python tools/make_descriptor.py > boutiques.json.new && mv boutiques.json.new boutiques.json

image: $(READY)
	@tools/build_image.sh
	@tools/check_image.sh

sif: image
	@tools/build_sif.sh

slurm: $(READY)
	@tools/check_slurm.sh
