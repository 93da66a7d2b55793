/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Sees what arrives at an interface, from outside of whoever sent it: `timed` writes down when, `counted`
 * how much. TCX at ingress; the frames go on to whatever else is attached there.
 */
#include "../../dataplane/bpf/helpers.h"

static __u64 (*const bpf_ktime_get_ns)(void) = (void *)5;

/* Nothing is decided here (linux/pkt_cls.h; TC_ACT_UNSPEC is the same number). */
#define TCX_NEXT -1

/* The beginning of include/uapi/linux/bpf.h's __sk_buff, as far as gso_segs. */
struct __sk_buff {
	__u32 unused[41];
	__u32 gso_segs;
};

/* Arrivals in one element of the array, so that they are read with few system calls: a page of them. */
#define PAGE 512

/* How many are to be written down. Set by the loader before the program is loaded. */
const volatile __u64 room = 0;

struct seen {
	__u64 frames;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct seen);
} seen SEC(".maps");

struct page {
	__u64 at[PAGE]; /* CLOCK_MONOTONIC, in ns */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1); /* the loader makes it larger */
	__type(key, __u32);
	__type(value, struct page);
} times SEC(".maps");

SEC("classifier")
int timed(struct __sk_buff *skb)
{
	__u64 now = bpf_ktime_get_ns();
	__u32 key = 0;
	struct seen *s = bpf_map_lookup_elem(&seen, &key);

	if (!s)
		return TCX_NEXT;

	/* One sender at a time: plain additions do. */
	__u64 n = s->frames;

	if (n >= room)
		return TCX_NEXT;
	s->frames = n + 1;
	key = n / PAGE;

	struct page *page = bpf_map_lookup_elem(&times, &key);

	if (page)
		page->at[n % PAGE] = now;
	return TCX_NEXT;
}

/* A merged packet counts as the packets that it stands for. */
SEC("classifier")
int counted(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct seen *s = bpf_map_lookup_elem(&seen, &key);

	if (s)
		s->frames += skb->gso_segs > 1 ? skb->gso_segs : 1;
	return TCX_NEXT;
}

char LICENSE[] SEC("license") = "MIT";
