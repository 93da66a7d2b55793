//! BPF programs: loaded into the kernel, attached by links that end with their owner, and asked about.
