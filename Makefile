# Two commands from a fresh clone: `make demo` and `make test`. Each installs what it needs
# into .venv, and nothing is downloaded but packages.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --quiet --constraint constraints.txt
XVFB := xvfb-run -a -s "-screen 0 1600x1000x24"

.PHONY: .eval-mini demo test lint types manifest pytest bench bench-embedded bench-segmenters robustness hardening eval-mini wheel clean

demo: .venv/.demo
	$(BIN)/medreasoner demo

test: lint types manifest pytest

lint: .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: .venv/.test
	$(BIN)/mypy

manifest: .venv/.test
	$(BIN)/npe2 validate napari_medreasoner/napari.yaml

pytest: .venv/.test
	$(XVFB) $(BIN)/python -m pytest

# Ratios against bare references in the same run; figures in benchmarks/README.md.
bench: .venv/.test
	$(XVFB) $(BIN)/python benchmarks/latency.py
	$(BIN)/python benchmarks/opening.py
	$(BIN)/python benchmarks/rewards.py
	$(BIN)/python benchmarks/reasoners.py

# Needs a UMRG data set: MEDREASONER_SHARED names the folder that holds data/umrg_mini.
bench-embedded: .venv/.test
	$(BIN)/python benchmarks/embedded.py

# MedSAM2 against the sam2 package; DEVICE=cuda measures a GPU.
bench-segmenters: .venv/.test
	$(BIN)/python benchmarks/segmenters.py --device $(or $(DEVICE),cpu)

# Mutants, crafted headers, bombs and killed exports, counted; half an hour on a quiet machine.
robustness: .venv/.test
	$(BIN)/python benchmarks/robustness.py

# What a server withstands: gates, canaries, 50 clients, kills, slow clients, schemathesis, soak.
hardening: .venv/.test
	$(BIN)/python benchmarks/hardening

# The floor that learned engines must beat, on the public test split; tables and report in out/.
eval-mini: .venv/.test
	@test -n "$(MEDREASONER_SHARED)" || \
	  { echo "eval-mini is skipped: MEDREASONER_SHARED names no folder with data/umrg_mini."; exit 0; }
	@test -z "$(MEDREASONER_SHARED)" || $(MAKE) --no-print-directory .eval-mini

MINI := $(MEDREASONER_SHARED)/data/umrg_mini
# From the start: a finished run would be gone on with, and show what the code was.
.eval-mini:
	rm -rf out/eval
	$(BIN)/medreasoner-train eval --data $(MINI) --split test --out out/eval/prior
	$(BIN)/medreasoner-train eval --data $(MINI) --split test --out out/eval/true-prompts \
	  --crm true-prompts
	$(BIN)/medreasoner-train tables out/eval/prior out/eval/true-prompts | tee out/eval/tables.md
	$(BIN)/medreasoner-train report out/eval/prior
	$(BIN)/medreasoner-train report out/eval/true-prompts

wheel: .venv/.test
	$(PIP) wheel --quiet --no-deps --wheel-dir dist .

clean:
	rm -rf .venv build dist out .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

.venv/.python:
	@$(PYTHON) -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer with venv is needed; install it, or name one: make PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	touch $@

# Missing system libraries are installed when root, else named in one line; the demo goes on
# without a window then, the tests do not.
.venv/.demo: .venv/.python pyproject.toml constraints.txt
	$(INSTALL) --editable '.[backend]' 'napari[pyqt6]'
	-$(BIN)/medreasoner install-system
	touch $@

# torch first and alone: sam2 is built against it, and it decides which torchvision is understood.
.venv/.test: .venv/.python pyproject.toml constraints.txt tests/environment/torchvision_on_cpu.py
	$(INSTALL) torch setuptools wheel
	$(INSTALL) --editable '.[test]'
	SAM2_BUILD_CUDA=0 $(INSTALL) --no-build-isolation sam2
	$(BIN)/python -c "import pathlib, sysconfig; \
	  site = pathlib.Path(sysconfig.get_path('purelib')); \
	  (site / 'test_environment.pth').write_text('$(CURDIR)/tests/environment\nimport torchvision_on_cpu\n')"
	$(BIN)/medreasoner install-system
	touch $@ .venv/.demo
