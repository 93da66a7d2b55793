//! Integration tests over real namespaces, devices and tools.
