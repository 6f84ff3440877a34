# Two images: `operator` (also the admission webhook; no torch) and `trainer` (also the agent beside it).
#   docker build --target operator -t adapter-training-operator:0.1.0 .
#   docker build --target trainer -t adapter-trainer:0.1.0 .
# PYTHON_BASE needs `python3` 3.11 with venv. Packages come from the locked requirements only, checked by hash.
ARG PYTHON_BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${PYTHON_BASE} AS tools
ENV PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1 UV_SYSTEM_CERTS=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
WORKDIR /build
COPY requirements/bootstrap.txt requirements/
RUN python3 -m venv /opt/tools \
 && /opt/tools/bin/pip install --quiet --require-hashes -r requirements/bootstrap.txt \
 && /opt/tools/bin/uv venv --quiet --python "$(command -v python3)" /opt/venv

FROM tools AS project
COPY pyproject.toml README.md LICENSE ./
COPY api api
COPY operator operator
COPY trainer trainer
COPY agent agent
COPY cli cli
RUN /opt/tools/bin/uv build --quiet --wheel --no-build-isolation --python /opt/tools/bin/python --out-dir /wheel \
 && /opt/tools/bin/uv pip install --quiet --compile-bytecode --python /opt/venv/bin/python --no-deps --target /opt/project /wheel/*.whl

FROM tools AS operator-packages
COPY requirements/operator.txt requirements/
RUN /opt/tools/bin/uv pip sync --quiet --compile-bytecode --python /opt/venv/bin/python --require-hashes requirements/operator.txt

FROM tools AS trainer-packages
# Packages that are left out again: `triton` where there is no GPU saves a gigabyte.
ARG WITHOUT=""
COPY requirements.txt requirements/
RUN /opt/tools/bin/uv pip sync --quiet --compile-bytecode --python /opt/venv/bin/python --require-hashes requirements/requirements.txt \
 && if [ -n "${WITHOUT}" ]; then /opt/tools/bin/uv pip uninstall --quiet --python /opt/venv/bin/python ${WITHOUT}; fi

FROM ${PYTHON_BASE} AS runtime
# Our own code is a layer by itself: it changes more often than gigabytes of packages.
ENV PATH=/opt/venv/bin:${PATH} PYTHONPATH=/opt/project PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp
RUN echo 'adapter:x:65532:65532::/tmp:/usr/sbin/nologin' >> /etc/passwd && echo 'adapter:x:65532:' >> /etc/group
WORKDIR /tmp
USER 65532:65532

FROM runtime AS operator
COPY --from=operator-packages /opt/venv /opt/venv
COPY --from=project /opt/project /opt/project
CMD ["python", "-m", "adapter_operator"]

FROM runtime AS trainer
COPY --from=trainer-packages /opt/venv /opt/venv
COPY --from=project /opt/project /opt/project
CMD ["python", "-m", "adapter_agent", "--help"]
