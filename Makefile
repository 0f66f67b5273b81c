# Every target makes its own environment: on a fresh machine, `make demo` or `make test` is the only command needed.
# Needs git, make and Python 3.11 or newer; uv is used when present and otherwise installed into .venv-uv.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.setup-done
GPU_VENV := .venv-gpu
GPU_STAMP := $(GPU_VENV)/.setup-done
OWN_UV := .venv-uv/bin/uv
# Run it rather than look for it: a version manager's shim can be on PATH and lead nowhere.
UV := $(shell uv --version >/dev/null 2>&1 && command -v uv || echo $(OWN_UV))
export UV

# What `make bench` measures: the demo's, made when it is missing, or yours.
DEMO := demo
BUNDLE ?= $(DEMO)/bundle.psarm
DATA ?= $(DEMO)/data
CHECKPOINT ?= $(if $(filter $(DEMO)/%,$(BUNDLE)),$(DEMO)/training/model.safetensors)
BENCH := bench $(BUNDLE) --data-root $(DATA) $(if $(CHECKPOINT),--checkpoint $(CHECKPOINT))
# Where `make gpu` writes.
GPU_JSON ?= benchmarks/results/gpu_h200.json
# One pytest process a core, because every test runs torch on one thread; each starts with whole files, so that
# a file's fixtures are mostly made once.
PYTEST := $(PY) -m pytest -n auto --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help setup demo test release coverage lint format docs bench gpu constraints clean

help: ## List the targets.
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name text; do printf '  make %-12s %s\n' "$$name" "$$text"; done

setup: $(STAMP) ## Make .venv with psarm and everything its development needs (again only when requirements change).

$(STAMP): pyproject.toml constraints.txt | $(filter $(OWN_UV),$(UV))
	test -x $(PY) || $(UV) venv --quiet --python '>=3.11,<3.15' $(VENV)
	$(UV) pip install --python $(PY) --constraints constraints.txt --editable '.[dev]'
	touch $@

# A plain venv where Python has ensurepip, else (Debian without python3-venv) pip into a folder.
$(OWN_UV):
	@echo "uv was not found: installing it into .venv-uv"
	rm -rf .venv-uv
	{ $(PYTHON) -m venv .venv-uv && .venv-uv/bin/python -m pip install --quiet uv; } \
		|| { rm -rf .venv-uv && $(PYTHON) -m pip install --quiet --target .venv-uv uv; } \
		|| { rm -rf .venv-uv; echo "Could not install uv; install it yourself and run make again." >&2; exit 1; }

demo: $(STAMP) ## See person search work: make data, train, export, benchmark, search.
	$(PY) -m psarm.benchmarks.demo

test: $(STAMP) ## Run every test.
	$(PYTEST)

bench: $(STAMP) $(BUNDLE) ## Measure accuracy and speed of BUNDLE=… on DATA=… (the demo's).
	$(VENV)/bin/psarm $(BENCH)

# A process that a signal ends (a library's fault) leaves the steps that it has not begun to another one.
gpu: ## Run the GPU suite (9 minutes at most), by the Python at hand where its torch has a GPU, else in .venv-gpu.
	@python=$(PYTHON); code=0; \
	$(PYTHON) -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null \
		|| { $(MAKE) --no-print-directory $(GPU_STAMP) && python=$(GPU_VENV)/bin/python; } \
		&& { $$python -m psarm.benchmarks.gpu --profile --json $(GPU_JSON) || code=$$?; } \
		&& if test $$code -gt 130; then $$python -m psarm.benchmarks.gpu --profile --json $(GPU_JSON) --resume; else exit $$code; fi

$(DEMO)/bundle.psarm: | $(STAMP)
	$(PY) -m psarm.benchmarks.demo

# Apart from .venv because onnxruntime and onnxruntime-gpu install over each other.
$(GPU_STAMP): pyproject.toml constraints.txt | $(filter $(OWN_UV),$(UV))
	@nvidia-smi >/dev/null 2>&1 || { echo "make gpu: no NVIDIA GPU here (nvidia-smi does not run), nothing was measured." >&2; exit 1; }
	test -x $(GPU_VENV)/bin/python || $(UV) venv --quiet --python '>=3.11,<3.15' $(GPU_VENV)
	$(UV) pip install --python $(GPU_VENV)/bin/python --constraints constraints.txt --editable '.[export]'
	$(UV) pip uninstall --python $(GPU_VENV)/bin/python onnxruntime
	$(UV) pip install --python $(GPU_VENV)/bin/python --reinstall-package onnxruntime-gpu onnxruntime-gpu
	touch $@

release: $(STAMP) ## Train the checkpoint that ships with psarm again (about an hour; docs/release.md).
	$(VENV)/bin/psarm data synth runs/release/data --frames 2400 --identities 300 --test-fraction 0.2 --size 640x360 --seed 2022
	$(VENV)/bin/psarm train --config configs/release.yaml --data-root runs/release/data
	$(PY) -m psarm.benchmarks.release runs/release/model.safetensors release/psarm-resnet18-synthetic.safetensors

coverage: $(STAMP) ## Run every test and report the lines none of them reached.
	$(PYTEST) --cov --cov-report=term

lint: $(STAMP) ## Check style, formatting, types and layers.
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy psarm
	$(VENV)/bin/lint-imports

format: $(STAMP) ## Put the code into the project's format.
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

docs: $(STAMP) ## Write docs/configuration.md from the docstrings, and the tables of README.md, docs/deployment.md and docs/gallery.md from benchmarks/results/.
	$(PY) -m psarm.benchmarks.configuration_page docs/configuration.md
	$(PY) -m psarm.benchmarks.readme_table README.md
	$(PY) -m psarm.benchmarks.readme_table docs/deployment.md
	$(PY) -m psarm.benchmarks.readme_table docs/gallery.md

constraints: $(STAMP) ## Write the installed versions to constraints.txt.
	@{ sed -n '/^#/p' constraints.txt; $(UV) pip freeze --python $(PY) | grep -E '^[A-Za-z0-9._-]+==' | grep -vE '^(nvidia|cuda|triton)'; } > constraints.new
	@mv constraints.new constraints.txt

clean: ## Remove the environment, caches and what the demo wrote.
	rm -rf $(VENV) $(GPU_VENV) .venv-uv build dist *.egg-info $(DEMO) .coverage .coverage.* htmlcov
	rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
