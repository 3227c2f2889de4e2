# trtserver: a thin front over Meson and Ninja. `make` alone lists what there is.
#
# Variables:  PREFIX DESTDIR (install)   HTTP_PORT ARGS (serve)   CC   V=1 (show commands)

PREFIX    ?= /opt/tensorrtserver
HTTP_PORT ?= 8000
ARGS      ?=
BUILD     := build
FETCHED   := third_party/fetched
# Debian's own Python: the pinned wheels of the tests are for 3.11.
PYTHON    ?= $(firstword $(wildcard /usr/bin/python3) python3)
Q         := $(if $(V),,@)

ORT        := $(FETCHED)/onnxruntime
ORT_LIB    := libonnxruntime.so.1.28.0
MODELS     := $(BUILD)/models
MODEL_SRCS := $(wildcard examples/models/*.py examples/models/*/*)

.DEFAULT_GOAL := help
.PHONY: help build serve speech models test test-full install lint format bench fuzz fetch clean distclean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^#: //p' $(MAKEFILE_LIST)

#: make serve        build everything if needed and serve the example models: HTTP 8000, gRPC 8001, metrics 8002
#: make speech       find the speech in a WAV file with the server that runs (make serve)
#: make build        release build: build/trtserver, build/backends/NAME/libtriton_NAME.so
#: make test         unit tests under sanitizers, fuzz corpora, real clients
#: make test-full    the same with the full products of types and protocols, h2spec, Go, Java, Node.js
#: make lint         format, banned functions, include directions, long functions
#: make bench        compare with Triton (ARGS=--quick; ARGS=--write puts the table into docs/)
#: make fuzz         fuzz each entry point for a minute (FUZZ_SECONDS=60)
#: make install      into PREFIX=/opt/tensorrtserver (DESTDIR is honoured)
#: make format       clang-format over our sources
#: make clean        remove build/
#: make distclean    remove build/ and everything fetched

# --- set-up: each step is a stamp that depends on what describes it ------------------------------

$(FETCHED)/.apt-build: scripts/setup-apt
	$(Q)scripts/setup-apt build
	$(Q)mkdir -p $(@D) && touch $@

$(FETCHED)/.fetched: third_party/pins.txt scripts/fetch | $(FETCHED)/.apt-build
	$(Q)$(PYTHON) scripts/fetch
	$(Q)touch $@

fetch: $(FETCHED)/.fetched

# --- build ---------------------------------------------------------------------------------------

# Ninja reruns Meson by itself when a meson.build changes.
$(BUILD)/build.ninja: | $(FETCHED)/.fetched
	$(Q)echo "Configuring $(BUILD)/"
	$(Q)mkdir -p $(BUILD)
	$(Q)meson setup $(BUILD) >$(BUILD)/setup.log 2>&1 || { cat $(BUILD)/setup.log; exit 1; }

build: $(BUILD)/build.ninja $(FETCHED)/.fetched
	$(Q)ninja -C $(BUILD) -n | grep -q 'no work to do' || ninja -C $(BUILD)$(if $(V), -v)
	$(Q)mkdir -p $(BUILD)/backends/onnxruntime && cd $(BUILD)/backends/onnxruntime && \
	  { [ -e $(ORT_LIB) ] || ln -sf ../../../$(ORT)/$(ORT_LIB) $(ORT_LIB); }

# --- run -----------------------------------------------------------------------------------------

$(MODELS)/.stamp: $(MODEL_SRCS) $(FETCHED)/.fetched
	$(Q)$(PYTHON) examples/models/make_models.py $(MODELS)
	$(Q)touch $@

models: $(MODELS)/.stamp

serve: build models
	$(Q)exec scripts/serve $(BUILD) $(MODELS) $(HTTP_PORT) $(ARGS)

$(FETCHED)/.apt-speech: scripts/setup-apt
	$(Q)scripts/setup-apt speech
	$(Q)mkdir -p $(@D) && touch $@

$(BUILD)/speech.wav: examples/python/make_speech.py | $(FETCHED)/.apt-speech
	$(Q)mkdir -p $(@D) && $(PYTHON) $< $@

speech: $(BUILD)/speech.wav
	$(Q)$(PYTHON) examples/python/find_speech.py --url localhost:$(HTTP_PORT) $<

# --- check ---------------------------------------------------------------------------------------

$(FETCHED)/.apt-test: scripts/setup-apt
	$(Q)scripts/setup-apt build test
	$(Q)mkdir -p $(@D) && touch $@ $(FETCHED)/.apt-build

test: $(FETCHED)/.apt-test build models
	$(Q)scripts/test

$(FETCHED)/.apt-full: scripts/setup-apt
	$(Q)scripts/setup-apt build test full
	$(Q)mkdir -p $(@D) && touch $@ $(FETCHED)/.apt-build $(FETCHED)/.apt-test

test-full: $(FETCHED)/.apt-full build models
	$(Q)scripts/test --full

lint: $(FETCHED)/.apt-test
	$(Q)scripts/lint

format: $(FETCHED)/.apt-test
	$(Q)git ls-files -co --exclude-standard -- '*.c' '*.h' | xargs clang-format -i

$(FETCHED)/.apt-bench: scripts/setup-apt
	$(Q)scripts/setup-apt build bench
	$(Q)mkdir -p $(@D) && touch $@

bench: $(FETCHED)/.apt-bench build
	$(Q)scripts/bench $(ARGS)

fuzz: $(FETCHED)/.apt-test $(FETCHED)/.fetched
	$(Q)scripts/fuzz $(or $(FUZZ_SECONDS),60)

# --- install -------------------------------------------------------------------------------------

DEST := $(DESTDIR)$(PREFIX)

install: build
	$(Q)install -D -m 755 $(BUILD)/trtserver $(DEST)/bin/trtserver
	$(Q)for lib in $(BUILD)/backends/*/libtriton_*.so; do \
	  name=$$(basename $$(dirname $$lib)); \
	  install -D -m 644 $$lib $(DEST)/backends/$$name/$$(basename $$lib) || exit 1; \
	done
	$(Q)install -D -m 644 -t $(DEST)/backends/onnxruntime \
	  $(ORT)/$(ORT_LIB) $(ORT)/LICENSE $(ORT)/ThirdPartyNotices.txt
	$(Q)install -D -m 644 -t $(DEST)/include/tis include/tis/*.h
	$(Q)install -D -m 644 LICENSE $(DEST)/share/doc/trtserver/LICENSE
	$(Q)for name in llhttp yyjson; do \
	  install -D -m 644 $(FETCHED)/$$name/LICENSE $(DEST)/share/doc/trtserver/LICENSE.$$name || exit 1; \
	done
	$(Q)echo "Installed in $(DEST); start it with $(PREFIX)/bin/trtserver --model-repository=DIR"

clean:
	$(Q)rm -rf $(BUILD)

distclean: clean
	$(Q)rm -rf $(FETCHED)
