# syntax=docker/dockerfile:1
# AIN Server on NVIDIA GPUs: vLLM's own image, and beside its packages only those it lacks.
#
#   docker build -t ain-server .
#   docker run --gpus all --init --shm-size 8g -p 127.0.0.1:8000:8000 -v ain-cache:/cache \
#       -e AIN_API_KEYS_FILE=/keys -v "$PWD/api-keys.txt:/keys:ro" ain-server --model MBZUAI/AIN
#
# The image listens on all addresses of its container, so the server refuses to start until it has keys
# (AIN_API_KEYS_FILE, AIN_API_KEYS) or is told that it needs none (AIN_ALLOW_UNAUTHENTICATED=true).
FROM vllm/vllm-openai:v0.32.0

WORKDIR /app
RUN useradd --uid 10001 --create-home ain && install -d -o ain -g ain /cache

# fonts-wqy-zenhei: Chinese, Japanese and Korean letters of documents that do not hold their fonts.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends fonts-wqy-zenhei \
    && rm -rf /var/lib/apt/lists/*

COPY pyproject.toml requirements/gpu.txt docker/missing.py /packages/
RUN python3 /packages/missing.py /packages/pyproject.toml /packages/gpu.txt >/packages/missing.txt \
    && python3 -m pip install --no-cache-dir --no-deps --require-hashes -r /packages/missing.txt

COPY pyproject.toml README.md LICENSE ./
COPY docker/entrypoint.sh docker/probe.py docker/
COPY clients clients
COPY server server

# PYTHONPATH: `python -m server` from any folder. /cache keeps weights and compiled kernels between containers.
ENV PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/cache/huggingface \
    VLLM_CACHE_ROOT=/cache/vllm \
    AIN_HOST=0.0.0.0 \
    AIN_PORT=8000
VOLUME ["/cache"]
EXPOSE 8000
USER 10001:10001

# Live, not ready: a server that loads or drains must not be restarted. Balancers ask /health/ready.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python3", "docker/probe.py", "/health/live"]
ENTRYPOINT ["/app/docker/entrypoint.sh"]
