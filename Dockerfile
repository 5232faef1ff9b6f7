# The wheels are those of the locks (make locks); nothing of this stage but the environment in /opt goes into the image.
FROM python:3.13-slim-trixie AS build
WORKDIR /build
COPY requirements.txt requirements-build.txt ./
RUN pip install --no-cache-dir --require-hashes --only-binary :all: --requirement requirements-build.txt \
 && python -m venv --without-pip /opt/concurrency-exporter \
 && pip --python /opt/concurrency-exporter install --no-cache-dir --require-hashes --only-binary :all: \
      --requirement requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY exporter exporter
COPY alerts/runbooks alerts/runbooks
# Bytecode that does not ask for the time of its source: to copy a file may change that.
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir dist . \
 && pip --python /opt/concurrency-exporter install --no-cache-dir --no-deps dist/*.whl \
 && python -m compileall -q -f --invalidation-mode unchecked-hash /opt/concurrency-exporter/lib

FROM python:3.13-slim-trixie
# The base has no bytecode of its standard library, and a user who may not write would compile it at each start. The
# import writes that of the modules that are used, and no other.
RUN --mount=type=bind,from=build,source=/opt/concurrency-exporter,target=/opt/concurrency-exporter \
    /opt/concurrency-exporter/bin/python -c 'import exporter.cli, exporter.demo' \
 && PYTHONDONTWRITEBYTECODE=1 pip uninstall --yes --root-user-action=ignore pip
COPY --from=build /opt/concurrency-exporter /opt/concurrency-exporter
ENV PATH=/opt/concurrency-exporter/bin:$PATH PYTHONDONTWRITEBYTECODE=1

ARG VERSION=0.1.0 REVISION= SOURCE=
LABEL org.opencontainers.image.title="concurrency-exporter" \
      org.opencontainers.image.description="Prometheus exporter for concurrency slots and task queues (Prefect, cloro)" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.source="$SOURCE"

USER 65532:65532
EXPOSE 10099
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["bash", "-c", \
  "exec 3<>/dev/tcp/127.0.0.1/10099 && printf 'GET /-/healthy HTTP/1.0\\r\\n\\r\\n' >&3 && read -r status <&3 && [[ $status == *' 200 '* ]]"]
# PID 1 never gets a signal that comes before it has a handler, unless it was blocked: the command has one, and unblocks them,
# before it imports anything.
ENTRYPOINT ["env", "--block-signal=TERM,INT", "concurrency-exporter"]
