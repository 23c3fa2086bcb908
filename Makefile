# Two commands from a fresh clone: `make demo` and `make test`. Each installs what it needs
# into .venv, and nothing is downloaded but packages.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --quiet --constraint constraints.txt
XVFB := xvfb-run -a -s "-screen 0 1600x1000x24"

.PHONY: .bench-gpu .eval-mini .train-embedded ablation bench bench-embedded bench-gpu \
  bench-segmenters bench-training clean demo eval-mini hardening lint manifest pytest robustness test test-gpu \
  train-embedded train-tiny types wheel

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

# One thread: matrices of the tests are tiny, and gain nothing by being shared.
pytest: .venv/.test
	OMP_NUM_THREADS=1 $(XVFB) $(BIN)/python -m pytest

# Ratios against bare references in the same run; figures in benchmarks/README.md.
bench: .venv/.test
	$(XVFB) $(BIN)/python benchmarks/latency.py
	$(BIN)/python benchmarks/opening.py
	$(BIN)/python benchmarks/rewards.py
	$(BIN)/python benchmarks/reasoners.py
	$(BIN)/python benchmarks/uploading.py
	$(BIN)/python benchmarks/speed.py

# Needs a UMRG data set: MEDREASONER_SHARED names the folder that holds data/umrg_mini.
bench-embedded: .venv/.test
	$(BIN)/python benchmarks/embedded.py

# MedSAM2 against the sam2 package; DEVICE=cuda measures a GPU.
bench-segmenters: .venv/.test
	$(BIN)/python benchmarks/segmenters.py --device $(or $(DEVICE),cpu)

# The same two on a GPU; models of their own are named by CRM and WEIGHTS.
bench-gpu: .venv/.test
	@if command -v nvidia-smi >/dev/null; then $(MAKE) --no-print-directory .bench-gpu; \
	  else echo "bench-gpu is skipped: nvidia-smi is not there, and so no CUDA device."; fi

.bench-gpu:
	$(BIN)/python benchmarks/segmenters.py --device cuda $(if $(WEIGHTS),--weights $(WEIGHTS))
	$(BIN)/python benchmarks/reasoners.py $(if $(CRM),--crm $(CRM))

# Mutants, crafted headers, bombs and killed exports, counted; half an hour on a quiet machine.
robustness: .venv/.test
	$(BIN)/python benchmarks/robustness.py

# What a server withstands: gates, canaries, 50 clients, kills, slow clients, schemathesis, soak.
hardening: .venv/.test
	$(BIN)/python benchmarks/hardening

# The engines that ship and the floor that learned ones must beat, on the public test split; tables
# and reports in out/.
eval-mini: .venv/.test
	@test -n "$(MEDREASONER_SHARED)" || \
	  { echo "eval-mini is skipped: MEDREASONER_SHARED names no folder with data/umrg_mini."; exit 0; }
	@test -z "$(MEDREASONER_SHARED)" || $(MAKE) --no-print-directory .eval-mini

MINI := $(MEDREASONER_SHARED)/data/umrg_mini
# From the start: a finished run would be gone on with, and show what the code was.
.eval-mini:
	rm -rf out/eval
	$(BIN)/medreasoner-train eval --data $(MINI) --split test --out out/eval/small-qwen \
	  --crm small-qwen --asm unet
	$(BIN)/medreasoner-train eval --data $(MINI) --split test --out out/eval/prior \
	  --crm prior --asm classical
	$(BIN)/medreasoner-train eval --data $(MINI) --split test --out out/eval/true-prompts \
	  --crm true-prompts --asm classical
	$(BIN)/medreasoner-train tables out/eval/small-qwen out/eval/prior out/eval/true-prompts \
	  | tee out/eval/tables.md
	$(BIN)/medreasoner-train report out/eval/small-qwen
	$(BIN)/medreasoner-train report out/eval/prior
	$(BIN)/medreasoner-train report out/eval/true-prompts

# Both models, from the data to the weights in the package; TIERS=open narrows the training
# data. By what its parts took, about nine hours on two cores; not run as a whole yet.
train-embedded: .venv/.test
	@test -n "$(MEDREASONER_SHARED)" || \
	  { echo "train-embedded is skipped: MEDREASONER_SHARED names no folder with data/umrg_mini."; exit 0; }
	@test -z "$(MEDREASONER_SHARED)" || $(MAKE) --no-print-directory .train-embedded

EMBEDDED := out/embedded
ALONE := OMP_NUM_THREADS=1
TIERS := open,noncommercial,unstated
SHARE := 1
SHIPPED := napari_medreasoner/engines/embedded/weights
.train-embedded:
	$(ALONE) $(BIN)/medreasoner-train embedded segmenter --data $(MINI) --tiers $(TIERS) --share $(SHARE) \
	  --out $(EMBEDDED)/unet & beside=$$!; \
	$(ALONE) $(BIN)/medreasoner-train embedded reasoner --data $(MINI) --tiers $(TIERS) --share $(SHARE) \
	  --out $(EMBEDDED)/reasoner && wait $$beside
	$(BIN)/medreasoner-train embedded ship $(SHIPPED) --segmenter $(EMBEDDED)/unet
	$(BIN)/medreasoner-train embedded ship $(SHIPPED) --reasoner $(EMBEDDED)/reasoner/cold

# A model of a million parameters learns to ground from nothing; curve.png in out/train-tiny.
train-tiny: .venv/.test
	$(BIN)/python benchmarks/learning.py --out out/train-tiny

# SFT and four rewards from one cold start: trainer/ablation/README.md; goes on where it was.
ablation: .venv/.test
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/ablation.py --out out/ablation

# Our GRPO step against bare TRL, and what keeping preprocessed pictures saves.
bench-training: .venv/.test
	$(BIN)/python benchmarks/training.py

# The steps of the tests in bfloat16 and with a larger model, where there is a CUDA device.
test-gpu: .venv/.test
	@nvidia-smi >/dev/null 2>&1 || echo "test-gpu is skipped: nvidia-smi finds no CUDA device."
	@! nvidia-smi >/dev/null 2>&1 || $(BIN)/python -m pytest tests/trainer/training/gpu.py

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
