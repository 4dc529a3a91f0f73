"""HTTP and JSON over a unix socket: wire types, the table of routes, server and client."""
