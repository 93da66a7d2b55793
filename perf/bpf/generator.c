/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Turns BPF_PROG_TEST_RUN with live frames into a traffic source: the kernel runs this program over
 * copies of one frame, and each that is due leaves through `interface`. It is attached to nothing.
 *
 * A limited rate is kept here and not by short runs: a run costs the kernel some 20 ms to set up, so
 * that many of them are bursts with gaps. A frame that is not due yet goes back to the run's page pool
 * (XDP_DROP), which costs some 20 ns, and the next one asks again.
 */
#include "../../dataplane/bpf/helpers.h"

static __u64 (*const bpf_ktime_get_ns)(void) = (void *)5;
static long (*const bpf_redirect)(__u32 ifindex, __u64 flags) = (void *)23;

/* Set by the loader before the program is loaded. */
const volatile __u32 interface = 0; /* index of where frames leave */
const volatile __u64 limit = 0;     /* frames to send; 0: no limit */
const volatile __u64 period = 0;    /* time from frame to frame, in 1/65536 ns; 0: at once */

/* One run at a time, on one core: plain additions do. Read by the loader. */
struct progress {
	__u64 sent;  /* frames handed to the interface */
	__u64 began; /* CLOCK_MONOTONIC of the first, in ns */
	__u64 last;  /* of the last, in ns; kept with a limited rate only */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct progress);
} progress SEC(".maps");

SEC("xdp")
int generate(struct xdp_md *ctx)
{
	__u32 key = 0;
	struct progress *at = bpf_map_lookup_elem(&progress, &key);

	if (!at)
		return XDP_ABORTED;
	if (limit && at->sent >= limit)
		return XDP_DROP;
	if (!at->began)
		at->began = bpf_ktime_get_ns();
	if (period) {
		/* Absolute: what is late is made up for, so that the rate holds over the run. */
		__u64 now = bpf_ktime_get_ns();

		if ((now - at->began) << 16 < at->sent * period)
			return XDP_DROP;
		at->last = now;
	}
	at->sent += 1;
	return bpf_redirect(interface, 0);
}

char LICENSE[] SEC("license") = "MIT";
