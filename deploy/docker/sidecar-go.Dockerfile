# The Go sidecar: one static file on nothing. From the root of the repository:
#
#   docker build -f deploy/docker/sidecar-go.Dockerfile -t dwcp-sidecar-go:0.1.0 .
#   docker run --read-only -v /srv/models:/models:ro -v dwcp:/run/dwcp dwcp-sidecar-go:0.1.0
#
# The model set is mounted at /models. To copy one into an image of its own, see with-models.Dockerfile.

FROM golang:1.25 AS build
# The compiler of the image, and no other; the versions and sums of go.sum, and no others.
ENV GOTOOLCHAIN=local GOFLAGS=-mod=readonly CGO_ENABLED=0
WORKDIR /src
COPY go-contract/go.mod go-contract/go.sum ./
RUN go mod download
COPY go-contract/ ./
RUN go build -ldflags="-s -w" -o /out/dwcp-sidecar-go ./cmd/dwcp-sidecar-go \
 && install -d -m 0770 /run/dwcp

FROM scratch
LABEL org.opencontainers.image.title="dwcp-sidecar-go" \
      org.opencontainers.image.description="Scores network metrics with exported anomaly models (Go)"
COPY --from=build /out/dwcp-sidecar-go /usr/local/bin/dwcp-sidecar-go
# Owned by the user that serves, so that it can make its socket there, also in a volume that is made from it.
COPY --from=build --chown=65532:65532 /run/dwcp /run/dwcp
# There is no shell here and no user list: a number, so that Kubernetes can see that it is not root.
USER 65532:65532
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s CMD ["/usr/local/bin/dwcp-sidecar-go", "health", "--address", "unix:/run/dwcp/score.sock"]
ENTRYPOINT ["/usr/local/bin/dwcp-sidecar-go", "--models", "/models", "--unix", "/run/dwcp/score.sock"]
# Further flags, for example: --metrics 0.0.0.0:9464
CMD []
