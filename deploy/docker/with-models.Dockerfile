# A sidecar with its model set inside, for places without volumes. Build the sidecar first, then from the root of the repository:
#
#   docker build -f deploy/docker/with-models.Dockerfile --build-arg IMAGE=dwcp-sidecar:0.1.0 -t dwcp-sidecar-models:0.1.0 .
#
# MODELS is a whole set below models/, without links (`cp -rL models/current models/mine`). A new set is a new image.
ARG IMAGE=dwcp-sidecar-go:0.1.0
FROM ${IMAGE}
ARG MODELS=models/reference/v1
COPY ${MODELS}/ /models/
