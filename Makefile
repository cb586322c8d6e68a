# First `make quickstart`, then `make test`; both need nothing but python3 (3.11 or newer) and make.
# Files on disk say what is left to do: each environment names its pins, and the harness knows about everything else.

PROFILE ?= full
PYTHON ?= python3
RUNNER ?= auto

UV := .venvs/uv/bin/uv
PY := .venvs/main/bin/python
# Each environment holds a copy of the pins that it was made from, written last.
HAVE_UV := .venvs/uv/.made
HAVE_MAIN := .venvs/main/.made
HAVE_DEV := .venvs/main/.made-dev
HAVE_RAY := .venvs/main/.made-ray
ASKED_RAY := $(if $(filter ray,$(EXECUTOR)),$(HAVE_RAY))
HAVE_BENCH := .venvs/bench-1.16.0/.made .venvs/isa/bench-1.16.0/.made
HAVE_BENCHES := $(HAVE_BENCH) .venvs/bench-current/.made .venvs/isa/bench-current/.made

HARNESS = $(PY) -m harness
OPTIONS = --profile '$(PROFILE)' $(if $(EXPERIMENT),--experiment '$(EXPERIMENT)')
INSTALL = $(UV) pip install -q --no-build --require-hashes
IN_IMAGE = --runner '$(RUNNER)' $(if $(MEMORY),--memory '$(MEMORY)')
ifdef DATA_DIR
export DATA_DIR
endif
ifdef BASE_IMAGE
export BASE_IMAGE
endif
ifdef BUILD_NETWORK
export BUILD_NETWORK
endif

# Make would ignore a variable that is given in small letters.
SMALL := profile experiment data_dir runner budget together devices redo code again time watch tensorboard
SMALL := $(filter $(SMALL:%=%=%),$(MAKEOVERRIDES))
$(if $(SMALL),$(error write the names of variables in capitals: $(SMALL)))

MAKEFLAGS += --no-builtin-rules
.DELETE_ON_ERROR:
# `make -j4 train-matrix bench` means one after the other, too: verbs find their work on disk.
.NOTPARALLEL:
.PHONY: help quickstart setup plan status data train-matrix bench results check verify report report-check merge pack unpack images test test-docs lint benchmarks lock clean distclean

help:  ## this list
	@echo 'make TARGET [PROFILE=quick|lite|overnight|full|long|reference] [EXPERIMENT=name] [DATA_DIR=folder]'
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo 'PROFILE is "$(PROFILE)"; quickstart is always quick. DATA_DIR is the folder that holds the data set, like'
	@echo 'cifar-100-python/; without it the data is downloaded into data/. EXPERIMENT is one table of matrix.toml.'
	@echo 'RUNNER=docker trains and benches in the images, local on this machine; auto: in the images where they are ready.'
	@echo 'BUDGET=9m ends train-matrix and results cleanly before the time is up; the same command resumes.'
	@echo 'TOGETHER=4 trains at most four networks side by side, DEVICES=cuda:0,cuda:1 names GPUs; without them memory'
	@echo 'and all GPUs decide. REDO=id makes a model again, REDO=all all of them, and AGAIN=1 measures all of them again;'
	@echo 'CODE=redo|keep says what becomes of models whose code changed. EXECUTOR=ray trains on a Ray cluster.'

# A cell that fails (exit code 1) does not stop the next verbs: the table says so, and so does the exit code in the end.
# Any other failure stops here.
quickstart: $(HAVE_MAIN) $(HAVE_BENCH)  ## everything in small: set up, fetch data, train, bench, report
	@failed=0; \
	for verb in data train-matrix bench report; do \
	  echo "==> $$verb"; \
	  case $$verb in train-matrix|bench) runner="--runner $(RUNNER)";; *) runner=;; esac; \
	  $(HARNESS) $$verb --profile quick $$runner || { code=$$?; failed=$$code; [ $$code -eq 1 ] || exit $$code; }; \
	done; \
	exit $$failed

setup: $(HAVE_MAIN) $(HAVE_BENCHES) $(ASKED_RAY)  ## make the environments: .venvs/main, and one per version of an engine

plan: $(HAVE_MAIN)  ## the cells, and what would run [TIME=1: and how long training will take here]
	@$(HARNESS) plan $(OPTIONS) $(if $(TIME),--time)

status: $(HAVE_MAIN)  ## how far the matrix has come: a grid per table [WATCH=1: until Ctrl-C]
	@$(HARNESS) status $(OPTIONS) $(if $(WATCH),--watch)

data: $(HAVE_MAIN)  ## the profile's data set: found, or fetched and checked
	@$(HARNESS) data --profile '$(PROFILE)'

train-matrix: $(HAVE_MAIN) $(ASKED_RAY)  ## train and export the missing models [EXECUTOR=ray: on a cluster]
	@$(HARNESS) train-matrix $(OPTIONS) $(if $(BUDGET),--budget '$(BUDGET)') $(IN_IMAGE) $(if $(GPUS),--gpus '$(GPUS)') \
	  $(if $(TOGETHER),--together '$(TOGETHER)') $(if $(DEVICES),--devices '$(DEVICES)') $(if $(EXECUTOR),--executor '$(EXECUTOR)') \
	  $(foreach id,$(REDO),--redo '$(id)') $(if $(CODE),--code '$(CODE)') $(if $(TENSORBOARD),--tensorboard '$(TENSORBOARD)')

bench: $(HAVE_MAIN) $(HAVE_BENCHES)  ## measure latency and accuracy of the exported models
	@$(HARNESS) bench $(OPTIONS) $(IN_IMAGE) $(if $(CODE),--code '$(CODE)') $(if $(AGAIN),--again)

results: $(HAVE_MAIN) $(HAVE_BENCHES)  ## everything unattended, the most valuable first, within BUDGET=25m
	@$(HARNESS) results $(OPTIONS) $(if $(BUDGET),--budget '$(BUDGET)')

check: $(HAVE_MAIN)  ## named checks of records and ONNX files; fails on errors
	@$(HARNESS) check $(OPTIONS)

verify: $(HAVE_MAIN)  ## the same and more: every number walked back to files, raw samples, keys
	@$(HARNESS) verify $(OPTIONS)

report: $(HAVE_MAIN)  ## tables, figures and the page from the records, also tables in README.md and docs/ [PNG=1]
	@$(HARNESS) report $(OPTIONS) $(if $(PNG),--png)

report-check: $(HAVE_MAIN)  ## fail where tables in README.md and docs/ are stale
	@$(HARNESS) report-check

# Between machines: records by merge, weights by pack and unpack. More options: bin/harness pack --help
merge: $(HAVE_MAIN)  ## merge another machine's records: FROM=folder/results
	@$(HARNESS) merge --profile '$(PROFILE)' $(FROM)

pack: $(HAVE_MAIN)  ## trained weights in parts, into packs/ [WHICH='teacher best'] [HALF=1]
	@$(HARNESS) pack --profile '$(PROFILE)' $(WHICH) $(if $(HALF),--half)

unpack: $(HAVE_MAIN)  ## rejoin packed weights, hashes checked: FROM=folder/packs
	@$(HARNESS) unpack --profile '$(PROFILE)' $(FROM)

images: $(HAVE_MAIN)  ## build the images whose content has changed; print ids and sizes
	@$(HARNESS) images $(if $(FRESH),--fresh)

# A file of tests that test-docs runs: it types commands, each a run of the harness.
TYPED := tests/docs_commands/test_commands_run.py

test: $(HAVE_DEV) $(HAVE_BENCHES)  ## all tests but those of the documents' commands
	@echo '==> pytest'
	@$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder --ignore $(TYPED)

test-docs: $(HAVE_DEV) $(HAVE_BENCHES)  ## type every command that README.md and the pages show, in a scratch checkout
	@echo '==> commands of the documents'
	@$(PY) -m pytest -n 2 --dist loadgroup $(TYPED)

lint: $(HAVE_DEV)  ## style, types and import boundaries
	@echo '==> ruff'
	@$(PY) -m ruff check -q --output-format concise .
	@$(PY) -m ruff format -q --check . || { echo 'not formatted: run $(PY) -m ruff format .' >&2; exit 1; }
	@echo '==> mypy'
	@$(PY) -m mypy
	@echo '==> import boundaries'
	@.venvs/main/bin/lint-imports --no-logo
	@echo '==> Dockerfiles'
	@.venvs/main/bin/hadolint Dockerfile.cpu Dockerfile.gpu

benchmarks: $(HAVE_DEV) $(HAVE_BENCHES)  ## measure the harness itself, into results/benchmarks [SUBJECT=name]
	@$(PY) -m benchmarks $(SUBJECT)

# Existing pins are kept unless UPGRADE=1. No index address is written down, so any index that has these files will do.
COMPILE = $(UV) pip compile -q --universal --generate-hashes --no-emit-index-url --no-emit-find-links \
	--custom-compile-command 'make lock' $(if $(UPGRADE),--upgrade)
lock: $(HAVE_UV)  ## pyproject.toml -> requirements/*.txt [UPGRADE=1]
	@echo '==> requirements'
	@$(COMPILE) --group setup -o requirements/setup.txt
	@$(COMPILE) --group isa -o requirements/isa.txt
	@$(COMPILE) pyproject.toml --extra bench -o requirements/bench-1.16.0.txt
	@$(COMPILE) pyproject.toml --extra train -o requirements/train.txt
	@$(COMPILE) pyproject.toml --extra bench-current -c requirements/train.txt -o requirements/bench-current.txt
	@$(COMPILE) pyproject.toml --extra train --extra ray -c requirements/train.txt -o requirements/ray.txt
	@$(COMPILE) pyproject.toml --extra train --extra dev -c requirements/ray.txt -o requirements/dev.txt

clean:  ## remove the quick profile's results and all caches
	@rm -rf artifacts/quick results/quick .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache .benchmarks
	@find harness benchmarks tests -name __pycache__ -prune -exec rm -rf {} +

distclean: clean  ## also the environments and the downloaded data
	@rm -rf .venvs data

# --- Environments: made as a whole, and made again when their pins change --------------------------------------------

# Whether pins have changed is a matter of what they say, not of when a file was written: nothing is made again because
# a branch was switched and switched back, or because environments stand in a fresh clone. Each is built beside the one
# that is there, which works on until the new one is whole.
same = $(shell cmp -s requirements/$(1).txt $(2) && echo same)
unless_same = $(if $(call same,$(1),$(2)),,other-pins)
with_uv = $(if $(1),$(1) $(HAVE_UV))
NEW = $(UV) venv -q --clear --relocatable --no-project .venvs/$(1).new
put_in_place = rm -rf $(1).old; if [ -e $(1) ]; then mv $(1) $(1).old; fi; mv $(1).new $(1); rm -rf $(1).old
.PHONY: other-pins

$(HAVE_UV): $(call unless_same,setup,$(HAVE_UV))
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "error: Python 3.11 or newer is needed, and '$(PYTHON)' is not; name one: make PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "error: this python3 has no venv module; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	@echo '==> .venvs/uv: the installer'
	@rm -rf .venvs/uv.new
	@$(PYTHON) -m venv .venvs/uv.new
	@.venvs/uv.new/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/setup.txt
	@cp requirements/setup.txt .venvs/uv.new/.made
	@$(call put_in_place,.venvs/uv)

$(HAVE_MAIN): $(call with_uv,$(call unless_same,train,$(HAVE_MAIN)))
	@echo '==> .venvs/main: training and reports (with torch: a download of about 3 GB the first time)'
	@$(call NEW,main) --python "$$(command -v $(PYTHON))"
	@$(INSTALL) --python .venvs/main.new -r requirements/train.txt
	@cp requirements/train.txt .venvs/main.new/.made
	@$(call put_in_place,.venvs/main)

# Laid over the environment before, and gone with it.
$(HAVE_RAY): $(call with_uv,$(or $(call unless_same,train,$(HAVE_MAIN)),$(call unless_same,ray,$(HAVE_RAY)))) | $(HAVE_MAIN)
	@echo '==> .venvs/main: Ray'
	@$(INSTALL) --python .venvs/main -r requirements/ray.txt
	@cp requirements/ray.txt $@

$(HAVE_DEV): $(call with_uv,$(or $(call unless_same,train,$(HAVE_MAIN)),$(call unless_same,dev,$(HAVE_DEV)))) | $(HAVE_MAIN)
	@echo '==> .venvs/main: tests and linters'
	@$(INSTALL) --python .venvs/main -r requirements/dev.txt
	@cp requirements/dev.txt $@

# onnxruntime 1.16.0 has no wheels for Python 3.12 and later: python3 if it is 3.11, else one that uv finds or gets.
.venvs/bench-1.16.0/.made: $(call with_uv,$(call unless_same,bench-1.16.0,.venvs/bench-1.16.0/.made))
	@echo '==> .venvs/bench-1.16.0: the reference study'"'"'s runtime (Python 3.11, onnxruntime 1.16.0, no torch)'
	@if $(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; \
	  then python="$$(command -v $(PYTHON))"; else python=3.11; fi; \
	$(call NEW,bench-1.16.0) --python "$$python" || { \
	  echo 'error: the bench needs Python 3.11, and none was found or could be downloaded; install python3.11' >&2; exit 2; }
	@$(INSTALL) --python .venvs/bench-1.16.0.new -r requirements/bench-1.16.0.txt
	@cp requirements/bench-1.16.0.txt .venvs/bench-1.16.0.new/.made
	@$(call put_in_place,.venvs/bench-1.16.0)

.venvs/bench-current/.made: $(call with_uv,$(call unless_same,bench-current,.venvs/bench-current/.made))
	@echo '==> .venvs/bench-current: the current onnxruntime, side by side'
	@$(call NEW,bench-current) --python "$$(command -v $(PYTHON))"
	@$(INSTALL) --python .venvs/bench-current.new -r requirements/bench-current.txt
	@cp requirements/bench-current.txt .venvs/bench-current.new/.made
	@$(call put_in_place,.venvs/bench-current)

# What it takes to show engines the target's instruction set (docs/target.md). Without a compiler, or on another kind of
# machine, it says so, each time, and nothing is made: then the bench measures under the machine's own.
.venvs/isa/.made: $(call with_uv,$(call unless_same,isa,.venvs/isa/.made))
	@$(call NEW,isa) --python "$$(command -v $(PYTHON))"
	@$(INSTALL) --python .venvs/isa.new -r requirements/isa.txt
	@cp requirements/isa.txt .venvs/isa.new/.made
	@$(call put_in_place,.venvs/isa)

.venvs/isa/%/.made: .venvs/%/.made .venvs/isa/.made $(wildcard harness/host/isa/*.c harness/host/isa/*.py)
	@echo '==> .venvs/isa: the target'"'"'s instruction set for .venvs/$*'
	@.venvs/isa/bin/python -m harness.host.isa.prepare .venvs/isa .venvs/$* && touch $@ || true
