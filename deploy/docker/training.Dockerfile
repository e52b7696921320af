# The command dwcp: trains, retrains, evaluates. From the root of the repository (BuildKit takes training.Dockerfile.dockerignore):
#
#   docker build -f deploy/docker/training.Dockerfile -t dwcp-training:0.1.0 .
#   docker run --read-only --tmpfs /tmp -v /srv/models:/models -v /srv/telemetry:/data:ro dwcp-training:0.1.0 \
#     retrain --models /models --data /data
#
# It writes to /models alone, as user 65532.

FROM python:3.11-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY requirements/train.txt deploy/docker/build.txt ./
RUN python -m venv --without-pip /opt/dwcp \
 && python -m pip --python /opt/dwcp/bin/python install --no-deps --require-hashes -r train.txt \
 && python -m pip install --no-deps --require-hashes -r build.txt
COPY sidecar/ sidecar/
COPY training/ training/
RUN python -m pip wheel --no-deps --no-build-isolation --wheel-dir /wheels ./sidecar ./training \
 && python -m pip --python /opt/dwcp/bin/python install --no-deps --no-index --find-links /wheels dwcp-sidecar dwcp-training

FROM python:3.11-slim
LABEL org.opencontainers.image.title="dwcp-training" \
      org.opencontainers.image.description="Trains and retrains anomaly models of network metrics"
COPY --from=build /opt/dwcp /opt/dwcp
# Keras wants a folder for its settings; the file system may be read-only but for /tmp.
ENV PATH=/opt/dwcp/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 KERAS_HOME=/tmp/keras
USER 65532:65532
STOPSIGNAL SIGTERM
ENTRYPOINT ["dwcp"]
CMD ["--help"]
