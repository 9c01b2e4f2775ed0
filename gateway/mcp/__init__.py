"""Tools: what callers see of MCP (`server`), real servers (`upstream`), recorded worlds."""
