"""The gateway's HTTP face: plain ASGI, no framework. docs/gateway-http.md is its contract."""
