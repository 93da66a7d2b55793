/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Measures from outside how long frames took: at ingress of the interface that they are written to, it
 * takes the time at which they were sent (perf/bpf/generator.c wrote it behind the UDP header) from the
 * time now, and counts the difference in a histogram. Frames go on as if it were not there.
 */
#include "../../dataplane/bpf/helpers.h"

static __u64 (*const bpf_ktime_get_ns)(void) = (void *)5;
static long (*const bpf_skb_load_bytes)(const void *skb, __u32 offset, void *to, __u32 len) = (void *)26;

#define TCX_NEXT -1 /* also TC_ACT_UNSPEC */
#define STAMP 42    /* Ethernet, IPv4 and UDP headers */

/* Log-linear, as HdrHistogram: 64 buckets for every power of two, so 1.6 % wide and less. Bucket n below 64
 * is n ns; above, bucket 64 * g + s holds 2^(g-1) ns from (64 + s) * 2^(g-1) on. */
#define BITS 6
#define GROUPS 32
#define BUCKETS (GROUPS << BITS) /* up to 2^37 ns, two minutes; the rest is in the last */

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, BUCKETS);
	__type(key, __u32);
	__type(value, __u64);
} histogram SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} longest SEC(".maps");

/* The number of the highest bit that is set; 0 for 0. */
static __always_inline __u32 highest(__u64 number)
{
	__u32 bit = 0;

	if (number >> 32) {
		bit += 32;
		number >>= 32;
	}
	if (number >> 16) {
		bit += 16;
		number >>= 16;
	}
	if (number >> 8) {
		bit += 8;
		number >>= 8;
	}
	if (number >> 4) {
		bit += 4;
		number >>= 4;
	}
	if (number >> 2) {
		bit += 2;
		number >>= 2;
	}
	return bit + (number >> 1);
}

SEC("classifier")
int latency(struct __sk_buff *skb)
{
	__u64 now = bpf_ktime_get_ns();
	__u64 sent, *count, took;
	__u32 bucket, zero = 0;

	if (bpf_skb_load_bytes(skb, STAMP, &sent, sizeof(sent)) || sent > now)
		return TCX_NEXT;
	took = now - sent;
	if (took >> BITS) {
		__u32 shift = highest(took) - BITS;

		bucket = (shift << BITS) + (__u32)(took >> shift);
	} else {
		bucket = took;
	}
	if (bucket >= BUCKETS)
		bucket = BUCKETS - 1;
	count = bpf_map_lookup_elem(&histogram, &bucket);
	if (count)
		*count += 1;
	count = bpf_map_lookup_elem(&longest, &zero);
	if (count && took > *count)
		*count = took;
	return TCX_NEXT;
}

char LICENSE[] SEC("license") = "MIT";
