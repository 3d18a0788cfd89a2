# A small image for predictions, without PyTorch and without usearch: docs/how-to/install-less.md
#
#   docker build --tag reaugkd .
#   docker run --rm --volume "$PWD/bundle:/bundle:ro" reaugkd predict /bundle "where is my parcel"

FROM python:3.13-slim AS build
WORKDIR /src
COPY . .
RUN python -m venv --without-pip /opt/reaugkd \
 && install="pip --python /opt/reaugkd/bin/python install --quiet --no-cache-dir --no-compile --constraint constraints.txt" \
 && $install --no-deps --requirement requirements-edge-minimal.txt \
 && $install --no-deps .
# Further packages, with what they need: --build-arg ALSO="usearch cryptography"
ARG ALSO=""
RUN [ -z "$ALSO" ] || pip --python /opt/reaugkd/bin/python install --quiet --no-cache-dir --no-compile --constraint constraints.txt $ALSO
# Bytecode of what is imported, and no other: 5 MB instead of 22.
RUN cd / && /opt/reaugkd/bin/python -c "import click, numpy, onnxruntime, tokenizers" \
 && /opt/reaugkd/bin/python -m compileall -q /opt/reaugkd/lib/python3.13/site-packages/reaugkd

FROM python:3.13-slim
COPY --from=build /opt/reaugkd /opt/reaugkd
ENV PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
ENTRYPOINT ["/opt/reaugkd/bin/reaugkd"]
