# `make` lists the targets. They set up what they need by themselves; PYTHON=... chooses the interpreter.
PYTHON ?= python3
# -qq: errors only; at -q pip would still warn about every package index that a machine lists and lacks.
PIP := -m pip install -qq --disable-pip-version-check

DEMO := .venv/.installed
TEST := .venv-test/.installed
BENCH := .venv-bench/.installed
BIN := .venv-test/bin
# LiteRT's converter is for Linux.
LITERT := $(if $(filter Linux,$(shell uname -s)),ethos-u$(shell printf ,))
ENGINE := $(wildcard engine/CMakeLists.txt engine/*.h engine/src/* engine/python/*)

CLANG ?= clang
FUZZ_SECONDS ?= 1200
CORPUS := engine/fuzz/corpus
FUZZ_FLAGS := -std=c11 -O2 -g -ffp-contract=off -D_DEFAULT_SOURCE \
  -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -Iengine -Iengine/src -DGOOD_MODEL='"$(CORPUS)/seed-small"'

.DEFAULT_GOAL := help
.PHONY: help demo test test-targets amalgamate sizes bench live fuzz clean

define check_python
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
  echo "kouling needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>/dev/null || echo not there);" \
    "try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
endef

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(DEMO)  ## set up .venv (small, no PyTorch), then hear commands in examples/ with the shipped models
	@echo "English, model en-commands:"
	@.venv/bin/kouling listen --model en-commands $(sort $(wildcard examples/en-*.ogg examples/en-*.wav examples/en-*.flac))
	@echo "Chinese, model zh-commands:"
	@.venv/bin/kouling listen --model zh-commands $(sort $(wildcard examples/zh-*.ogg examples/zh-*.wav examples/zh-*.flac))

test: $(TEST)  ## set up .venv-test (with PyTorch), then all checks that need no network
	$(BIN)/ruff check src tests engine bench examples
	$(BIN)/ruff format --check src tests engine bench examples
	$(BIN)/mypy --strict src engine/amalgamate.py engine/sizes.py engine/fuzz/seeds.py
	$(BIN)/pytest -n auto

test-targets: .venv-targets/.installed .venv-rknn/.installed  ## set up .venv-targets and .venv-rknn, then the tests of exports for LiteRT, Ethos-U, OpenVINO, ExecuTorch, RKNN (Linux)
	.venv-targets/bin/pytest tests/compress/test_target.py tests/deploy/test_litert.py tests/deploy/test_openvino.py tests/deploy/test_executorch.py tests/deploy/test_rknn.py tests/deploy/test_fused.py tests/bench/test_fusion.py

amalgamate:  ## join the C engine into build/amalgamated/kouling.c and kouling.h, to drop into a firmware tree
	$(check_python)
	@$(PYTHON) engine/amalgamate.py build/amalgamated

sizes: $(DEMO)  ## code, model and RAM bytes on microcontrollers, with whichever cross compilers and QEMU are here
	@.venv/bin/python engine/sizes.py

bench: $(BENCH)  ## set up .venv-bench, then the engine against ONNX Runtime, LiteRT, OpenVINO and ExecuTorch (Linux)
	.venv-bench/bin/python -m bench

live: $(BENCH)  ## 2,000 live streams at once, and the time of a step over an hour (Linux)
	.venv-bench/bin/python -m bench.live

fuzz:  ## inputs that break the C engine, searched for FUZZ_SECONDS=1200 with Clang's libFuzzer and sanitizers
	@command -v $(CLANG) >/dev/null || { \
	  echo "make fuzz needs Clang and its libFuzzer (apt install clang); try: make fuzz CLANG=clang-14" >&2; exit 1; }
	@mkdir -p build/fuzz/corpus
	$(CLANG) $(FUZZ_FLAGS) -o build/fuzz/fuzz engine/fuzz/fuzz.c engine/fuzz/mutate.c engine/src/*.c -lm
	@cp $(CORPUS)/* build/fuzz/corpus
	build/fuzz/fuzz -max_total_time=$(FUZZ_SECONDS) -max_len=49152 -timeout=120 -print_final_stats=1 \
	  -artifact_prefix=build/fuzz/ build/fuzz/corpus
	@echo "kept: what reaches code that nothing in $(CORPUS) reaches, if it is small"
	build/fuzz/fuzz -merge=1 -use_counters=0 -max_len=18560 -artifact_prefix=build/fuzz/ $(CORPUS) build/fuzz/corpus

clean:  ## delete all environments, caches and builds; runs/ and data/ stay
	rm -rf .venv .venv-test .venv-bench .venv-targets .venv-rknn .mypy_cache .ruff_cache .pytest_cache build dist
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

# Editable installs: edited Python runs at once, so only a change of what is installed, or of C, makes the stamps stale.
$(DEMO): pyproject.toml $(ENGINE)
	$(check_python)
	@echo "setting up .venv ..."
	@$(PYTHON) -m venv .venv
	@.venv/bin/python $(PIP) -e .
	@.venv/bin/python -c 'import kouling._engine' 2>/dev/null || { \
	  echo "the C engine was not built (is there a C++ compiler?); installing ONNX Runtime instead"; \
	  .venv/bin/python $(PIP) -e '.[onnx]'; }
	@touch $@

# PyTorch alone and first: it is most of the download, and a failure is then plainly about it.
$(TEST): pyproject.toml constraints.txt $(ENGINE)
	$(check_python)
	@echo "setting up .venv-test: PyTorch ..."
	@$(PYTHON) -m venv .venv-test
	@$(BIN)/python $(PIP) -c constraints.txt torch
	@echo "setting up .venv-test: kouling, LiteRT, Vela and the rest ..."
	@$(BIN)/python $(PIP) -c constraints.txt -e '.[train,onnx,$(LITERT)dev]'
	@touch $@

.venv-targets/.installed: pyproject.toml constraints.txt $(ENGINE)
	$(check_python)
	@echo "setting up .venv-targets: PyTorch ..."
	@$(PYTHON) -m venv .venv-targets
	@.venv-targets/bin/python $(PIP) -c constraints.txt torch
	@echo "setting up .venv-targets: kouling, LiteRT, Vela, OpenVINO and ExecuTorch ..."
	@.venv-targets/bin/python $(PIP) -c constraints.txt -e '.[train,onnx,ethos-u,openvino,executorch,executorch-ethos-u,dev]'
	@touch $@

# RKNN Toolkit's pins go with none of ours. Its own pin of PyTorch is for models that are not given as ONNX: any will do.
.venv-rknn/.installed: constraints.txt src/kouling/deploy/rknn-requirements.txt
	$(check_python)
	@echo "setting up .venv-rknn: RKNN Toolkit ..."
	@$(PYTHON) -m venv .venv-rknn
	@.venv-rknn/bin/python $(PIP) -c constraints.txt -r src/kouling/deploy/rknn-requirements.txt
	@.venv-rknn/bin/python $(PIP) --no-deps rknn-toolkit2==2.5.0
	@touch $@

# A peer that cannot be had is no reason not to measure the others.
$(BENCH): pyproject.toml constraints.txt bench/requirements.txt $(ENGINE)
	$(check_python)
	@echo "setting up .venv-bench: PyTorch ..."
	@$(PYTHON) -m venv .venv-bench
	@.venv-bench/bin/python $(PIP) -c constraints.txt torch
	@echo "setting up .venv-bench: kouling and the other runtimes ..."
	@.venv-bench/bin/python $(PIP) -c constraints.txt -e '.[train,onnx]'
	@.venv-bench/bin/python $(PIP) -c constraints.txt -r bench/requirements.txt || \
	  sed 's/ *#.*//' bench/requirements.txt | grep . | while read -r each; do \
	    .venv-bench/bin/python $(PIP) -c constraints.txt "$$each" || echo "could not be installed: $$each"; done
	@touch $@
