# One recipe for all images of unibrain-bids: docs/containers.md tells how they are built and run.
#
#   BASE         an image with Python 3.10 or newer as python3; name it with its digest (@sha256:...) to pin it fully
#   TORCH_INDEX  the package index that decides the build of torch: .../whl/cpu or .../whl/cu130, whose wheels bring CUDA
#                along; empty for what pip finds by itself
#   IMAGE, TAG, REVISION, CREATED  what labels and derivatives say of the image
ARG BASE=docker.io/library/python:3.11-slim-bookworm

# What the package requires, read from where it says so; apart, so that other changes there rebuild nothing.
# hadolint ignore=DL3006
FROM ${BASE} AS requirements
WORKDIR /src
COPY setup.cfg ./
RUN python3 -c "import configparser as c; p = c.ConfigParser(); p.read('setup.cfg'); \
    print(p['options']['install_requires'], p['options.extras_require']['templateflow'])" > requirements.txt

# hadolint ignore=DL3006
FROM ${BASE} AS libraries
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python3 -m venv /opt/unibrain
COPY constraints.txt ./
# torch is most of the download, and changes less often than the other libraries.
RUN /opt/unibrain/bin/pip install --constraint constraints.txt ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"} torch
COPY --from=requirements /src/requirements.txt ./
# Other packages' tests and torch's C++ headers are of no use at run time; neither is pip.
RUN /opt/unibrain/bin/pip install --constraint constraints.txt --requirement requirements.txt bids-validator-deno \
 && find /opt/unibrain/lib -type d \( -name tests -o -path '*/torch/include' \) -prune -exec rm -rf {} + \
 && /opt/unibrain/bin/pip freeze > /opt/unibrain/BUILD.packages \
 && /opt/unibrain/bin/pip uninstall --yes pip setuptools

# The package alone, for the environment of the libraries: who pulls a new version pulls its layer and no other.
# hadolint ignore=DL3006
FROM ${BASE} AS package
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python3 -m venv /opt/unibrain
COPY LICENSE README.md pyproject.toml setup.cfg ./
COPY unibrain_bids unibrain_bids
RUN /opt/unibrain/bin/pip install --no-deps --prefix /opt/package .

# hadolint ignore=DL3006
FROM ${BASE}
COPY --from=libraries /opt/unibrain /opt/unibrain
COPY --from=package /opt/package /opt/unibrain
ARG BASE
ARG IMAGE=unibrain-bids
ARG TAG=dev
ARG REVISION=unknown
ARG CREATED=unknown
# Nothing is written to the image when it runs: any user, without a home, with a read-only root file system.
ENV PATH=/opt/unibrain/bin:$PATH \
    LANG=C.UTF-8 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONNOUSERSITE=1 \
    NO_ET=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    UNIBRAIN_CONTAINER_TYPE=docker \
    UNIBRAIN_CONTAINER_TAG=${TAG} \
    UNIBRAIN_CONTAINER_URI=docker://${IMAGE}:${TAG}
LABEL org.opencontainers.image.title="unibrain-bids" \
      org.opencontainers.image.description="BIDS App: structural brain MRI with one neural model. Research use only." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${TAG}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="${BASE}"
RUN { echo "image ${IMAGE}:${TAG}"; echo "revision ${REVISION}"; echo "created ${CREATED}"; echo "base ${BASE}"; \
      python3 --version; cat /opt/unibrain/BUILD.packages; } > /opt/unibrain/BUILD.info \
 && rm /opt/unibrain/BUILD.packages \
 && unibrain-bids --version
ENTRYPOINT ["unibrain-bids"]
