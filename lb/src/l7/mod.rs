//! HTTP: heads, bodies, routes, exchanges. Sans-io.
