"""Load tests of running servers: what their users feel, over HTTP with streaming."""
