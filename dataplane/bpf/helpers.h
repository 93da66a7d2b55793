/* The little of the kernel's BPF interface (include/uapi/linux/bpf.h) that our programs use, written
 * out so that they compile with clang alone: no kernel headers, no libbpf, and so the same object on
 * every machine. All of it is stable user-space ABI.
 */
#pragma once

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;

#define SEC(name) __attribute__((section(name), used))
#define __always_inline inline __attribute__((always_inline))

/* BTF-defined maps: the shape of these members is what the loader reads. */
#define __uint(name, value) int(*name)[value]
#define __type(name, value) typeof(value) *name

enum bpf_map_type {
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_XSKMAP = 17,
};

enum xdp_action {
	XDP_ABORTED = 0,
	XDP_DROP = 1,
	XDP_PASS = 2,
	XDP_TX = 3,
	XDP_REDIRECT = 4,
};

struct xdp_md {
	__u32 data;
	__u32 data_end;
	__u32 data_meta;
	__u32 ingress_ifindex;
	__u32 rx_queue_index;
	__u32 egress_ifindex;
};

/* linux/pkt_cls.h; TCX_DROP is the same number. */
#define TC_ACT_SHOT 2

struct __sk_buff;

static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*const bpf_redirect_map)(void *map, __u64 key, __u64 flags) = (void *)51;
static __u64 (*const bpf_xdp_get_buff_len)(struct xdp_md *ctx) = (void *)188;
