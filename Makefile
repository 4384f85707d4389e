# Two commands do everything on a fresh machine with Python 3.11 or newer:
#   make demo   environment, install, the main job on the embedded default, a report
#   make test   environment, install, the whole suite
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
OUT    ?= face-jax-report

.PHONY: demo test lint types wheel docs clean

demo: $(VENV)/.demo
	$(BIN)/face-jax demo --out $(OUT)

# Tests mostly compile, on one core each; a file's tests share what they compile. What goes on is said every half minute.
test: $(VENV)/.test
	$(BIN)/pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test
	.ci/types $(BIN)/python

wheel: $(VENV)/.test
	.ci/wheel $(BIN)/python

# Built as it must be to land, then served on this machine until Ctrl-C.
docs: $(VENV)/.docs
	.ci/docs $(BIN)/python
	$(BIN)/python -m http.server --bind localhost --directory build/docs 8000

$(VENV)/.venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "face_jax needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Try: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
	  || { echo "$(PYTHON) can't make an environment. On Debian: apt install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --constraint constraints.txt pip setuptools
	@touch $@

$(VENV)/.demo: $(VENV)/.venv pyproject.toml constraints.txt
	@echo "Installing (a few minutes the first time) …"
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[demo]'
	@touch $@

$(VENV)/.test: $(VENV)/.demo
	$(BIN)/pip install --quiet --constraint constraints.txt --group test --group lint
	@touch $@

$(VENV)/.docs: $(VENV)/.test
	$(BIN)/pip install --quiet --constraint constraints.txt --group docs
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .cache .pytest_cache .ruff_cache $(OUT)
