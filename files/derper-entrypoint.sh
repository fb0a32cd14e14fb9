#!/bin/sh
# Run derper with flags from the environment variables that the common derper images know.
# Arguments go to derper behind them.
set -eu
exec derper \
  -c /var/lib/derper/derper.key \
  -hostname "${DERP_DOMAIN:?is not set: the name that clients connect to}" \
  -a "${DERP_ADDR:-:443}" \
  -certmode "${DERP_CERT_MODE:-letsencrypt}" \
  -certdir "${DERP_CERT_DIR:-/app/certs}" \
  -http-port "${DERP_HTTP_PORT:-80}" \
  -stun="${DERP_STUN:-true}" \
  -stun-port "${DERP_STUN_PORT:-3478}" \
  -home "${DERP_HOME:-}" \
  -verify-clients="${DERP_VERIFY_CLIENTS:-false}" \
  -verify-client-url "${DERP_VERIFY_CLIENT_URL:-}" \
  -verify-client-url-fail-open="${DERP_VERIFY_CLIENT_URL_FAIL_OPEN:-true}" \
  "$@"
