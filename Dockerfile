# One image for the web server and the worker: the command says which it is.
FROM python:3.12-slim AS build
WORKDIR /app
COPY pyproject.toml requirements.txt README.md ./
COPY hub hub
COPY workers workers
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir -c requirements.txt .

FROM python:3.12-slim
# util-linux brings unshare and setpriv; the sandbox of the converters is made with the kernel's own means.
RUN apt-get update \
    && apt-get install -y --no-install-recommends util-linux tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --home-dir /data --no-create-home hub \
    && install -d -o hub -g hub /data
WORKDIR /app
COPY --from=build /venv /venv
COPY . .
# The checkout is what runs: plugins, templates and samples are found beside the packages.
ENV PATH=/venv/bin:$PATH PYTHONPATH=/app PYTHONUNBUFFERED=1 HUB_DATA=/data
USER hub
VOLUME /data
EXPOSE 8080
ENTRYPOINT ["tini", "--"]
CMD ["slmhub", "serve"]
HEALTHCHECK --interval=10s --timeout=3s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/healthz', timeout=2)"]
