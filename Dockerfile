# Two images: `docker build --target cpu .` (the default; serves the demo model) and
# `docker build --target cuda .` (NVIDIA GPUs).

FROM python:3.11.14-slim-bookworm AS cpu-build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
# The same three steps as in the Makefile: torch alone, the lock, the project.
RUN python -m venv /opt/proctor \
    && /opt/proctor/bin/python -m pip install --no-deps \
    --index-url https://download.pytorch.org/whl/cpu torch==2.13.0+cpu
COPY requirements/engine-cpu.txt requirements/engine-cpu.txt
RUN /opt/proctor/bin/python -m pip install --no-deps --require-hashes \
    --requirement requirements/engine-cpu.txt
COPY pyproject.toml README.md LICENSE ./
COPY budget budget
COPY demo demo
COPY curation curation
COPY evaluation evaluation
COPY replica replica
COPY router router
COPY server server
COPY training training
COPY src src
RUN /opt/proctor/bin/python -m pip install --no-deps --no-build-isolation .

# vLLM's own image brings CUDA, torch and vLLM in versions that were built for each other.
FROM vllm/vllm-openai:v0.32.0 AS cuda
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY budget budget
COPY demo demo
COPY curation curation
COPY evaluation evaluation
COPY replica replica
COPY router router
COPY server server
COPY training training
COPY src src
# vLLM's packages are already there and are held by the constraints: pip adds what is missing.
RUN python3 -m pip freeze --exclude-editable | grep -v ' @ ' > /tmp/constraints.txt \
    && python3 -m pip install --no-cache-dir --constraint /tmp/constraints.txt '.[postgres]' \
    && rm -rf /src /tmp/constraints.txt \
    && useradd --create-home --uid 10001 proctor \
    && install -d -o proctor -g proctor /home/proctor/.cache /home/proctor/.cache/huggingface
USER 10001
WORKDIR /home/proctor
ENV PROCTOR_HOST=0.0.0.0 PROCTOR_PORT=8000
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=10m --retries=3 \
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["proctor"]
CMD ["serve"]

FROM python:3.11.14-slim-bookworm AS cpu
# g++: torch compiles model code at run time unless the engine is told to be eager.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ libnuma1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 proctor
COPY --from=cpu-build /opt/proctor /opt/proctor
USER 10001
WORKDIR /home/proctor
ENV PATH=/opt/proctor/bin:$PATH PROCTOR_HOST=0.0.0.0 PROCTOR_PORT=8000
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=2m --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["proctor"]
CMD ["serve"]
