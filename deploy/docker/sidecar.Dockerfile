# The Python sidecar. From the root of the repository:
#
#   docker build -f deploy/docker/sidecar.Dockerfile -t dwcp-sidecar:0.1.0 .
#   docker run --read-only --tmpfs /tmp -v /srv/models:/models:ro -v dwcp:/run/dwcp dwcp-sidecar:0.1.0
#
# The model set is mounted at /models. To copy one into an image of its own, see with-models.Dockerfile.

FROM python:3.11-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY requirements/serve.txt deploy/docker/build.txt ./
RUN python -m venv --without-pip /opt/dwcp \
 && python -m pip --python /opt/dwcp/bin/python install --no-deps --require-hashes -r serve.txt \
 && python -m pip install --no-deps --require-hashes -r build.txt
COPY sidecar/ sidecar/
# The same wheel that anybody else would build; no package is looked up any more.
RUN python -m pip wheel --no-deps --no-build-isolation --wheel-dir /wheels ./sidecar \
 && python -m pip --python /opt/dwcp/bin/python install --no-deps --no-index --find-links /wheels dwcp-sidecar \
 && install -d -m 0770 /run/dwcp

FROM python:3.11-slim
LABEL org.opencontainers.image.title="dwcp-sidecar" \
      org.opencontainers.image.description="Scores network metrics with exported anomaly models (Python)"
COPY --from=build /opt/dwcp /opt/dwcp
# Owned by the user that serves, so that it can make its socket there, also in a volume that is made from it.
COPY --from=build --chown=65532:65532 /run/dwcp /run/dwcp
# Nothing is written but the socket and, with several workers, their metrics in /tmp: the file system may be read-only.
ENV PATH=/opt/dwcp/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# A number, so that Kubernetes can see that it is not root.
USER 65532:65532
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s CMD ["dwcp-sidecar", "health", "--address", "unix:/run/dwcp/score.sock"]
ENTRYPOINT ["dwcp-sidecar", "serve", "--models", "/models", "--unix", "/run/dwcp/score.sock"]
# Further flags, for example: --metrics 0.0.0.0:9464 --workers 2, or --public-key /keys/signing-key.pub.pem for signed models alone
CMD []
