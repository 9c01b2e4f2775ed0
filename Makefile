# Everything a person or CI does with this checkout. Set-up is idempotent and quick the second time.
#   make demo                the whole story, offline
#   make demo MODEL=gpt-5    the same with a real model (needs OPENAI_API_KEY or ANTHROPIC_API_KEY)
#   make test ARGS="-k gate" any pytest arguments

PYTHON := .venv/bin/python
ARGS ?=

.PHONY: setup demo test check bench bench-config bench-gateway docs

setup:
	@.ci/setup

demo: setup
	@.venv/bin/interlock demo $(if $(MODEL),--model $(MODEL))

test:
	@.ci/setup tests
	@$(PYTHON) -m pytest -m "not benchmark" $(ARGS)

check:
	@.ci/setup venv
	@.ci/check

bench:
	@.ci/setup tests
	@$(PYTHON) -m pytest tests/benchmarks -m benchmark --timeout=1800 -q -s $(ARGS)

# SIZES=1000 for one size; the default is 1,000, 10,000 and 50,000 agents
bench-config:
	@.ci/setup venv
	@$(PYTHON) -m pytest tests/benchmarks/test_config_scale.py tests/benchmarks/test_tick_config.py -m benchmark --timeout=1800 -q -s $(ARGS)

# Ours beside nginx, LiteLLM and Portkey; QUICK=1 for nginx only, MILLION=1 for the memory over a
# million calls
bench-gateway:
	@.ci/setup venv
	@$(if $(MILLION),,.ci/bench.sh nginx $(if $(QUICK),,litellm portkey))
	@$(PYTHON) -m pytest tests/benchmarks/test_gateway.py -m benchmark --timeout=3600 -q -s $(ARGS)

docs:
	@.ci/setup venv
	@$(PYTHON) -m pytest -q tests/test_docs.py $(ARGS)
