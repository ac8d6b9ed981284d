# The worker, and the command line beside it. Nothing else is in the image: no shell, no package manager.
#   docker build -t bellhop-worker .

FROM golang:1.26.8-alpine3.23 AS build
WORKDIR /src
# Dependencies first: they change more rarely than the code.
COPY go.mod go.sum ./
RUN go mod download
COPY . .
# What git describe says, for `bellhop version`: the context has no .git.
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /out/ ./worker && \
    CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /out/ ./starter && \
    mv /out/worker /out/bellhop-worker && mv /out/starter /out/bellhop && mkdir -p /out/cache/bellhop

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/bellhop-worker /out/bellhop /usr/local/bin/
# The one place that it writes to: the simulated provider's state. A volume there keeps it.
COPY --from=build --chown=65532:65532 /out/cache /var/cache
ENV XDG_CACHE_HOME=/var/cache
# No name is needed: scratch has no /etc/passwd.
USER 65532:65532
ENV PATH=/usr/local/bin
ENTRYPOINT ["bellhop-worker"]
