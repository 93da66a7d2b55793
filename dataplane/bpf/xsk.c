/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Hands every frame of a claimed queue to the AF_XDP socket of that queue.
 *
 * A queue is *claimed* from the moment that its port owns it, and stays so while the socket is made
 * anew. A frame of a claimed queue is delivered or dropped and counted; it never reaches the host's
 * own stack, where no policy judges it. A frame of any other queue is the host's (XDP_PASS), unless
 * the port owns the whole interface, and with it queues that are switched on later (`unclaimed`).
 *
 * SEC("xdp.frags"): drivers refuse a program that cannot take several buffers when the MTU is large
 * (veth: ERANGE above some 3,500 bytes). Our sockets take one buffer a frame. In copy mode the kernel
 * drops what does not fit a chunk (rx_dropped in XDP_STATISTICS); in zero-copy mode it would deliver
 * the pieces one by one, and the second would be read as a frame of its own, with headers of the
 * sender's choice. So where SINGLE_BUFFER is set, such a frame ends here.
 */
#include "helpers.h"

/* Set by the loader before the program is loaded. */
const volatile __u32 queues = 64;          /* entries of `claims` and `xsks` */
const volatile __u32 unclaimed = XDP_PASS; /* for frames of queues that nobody claimed */

/* The largest chunk of a UMEM, and so the largest buffer that a zero-copy driver fills. */
#define LONGEST_BUFFER 4096

enum claim {
	CLAIMED = 1,
	SINGLE_BUFFER = 2,
};

/* Per queue, as indexes into `counters`: queue * COUNTERS + counter. */
enum counter {
	NO_SOCKET,         /* claimed, but no socket there: dropped */
	MULTI_BUFFER,      /* does not fit one buffer: dropped */
	UNCLAIMED_PASSED,  /* left to the host */
	UNCLAIMED_DROPPED, /* nobody's queue, and `unclaimed` says drop */
	COUNTERS,
};

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u32);
} xsks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u32);
} claims SEC(".maps");

/* One row more than there are queues: queues beyond the maps share the last. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 65 * COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

static __always_inline void count(__u32 queue, enum counter counter)
{
	__u32 row = queue < queues ? queue : queues;
	__u32 key = row * COUNTERS + counter;
	__u64 *value = bpf_map_lookup_elem(&counters, &key);

	if (value)
		*value += 1;
}

SEC("xdp.frags")
int xsk(struct xdp_md *ctx)
{
	__u32 queue = ctx->rx_queue_index;
	__u32 *claim = bpf_map_lookup_elem(&claims, &queue);
	long action;

	if (!claim || !(*claim & CLAIMED)) {
		if (unclaimed == XDP_PASS) {
			count(queue, UNCLAIMED_PASSED);
			return XDP_PASS;
		}
		count(queue, UNCLAIMED_DROPPED);
		return XDP_DROP;
	}

	if (*claim & SINGLE_BUFFER) {
		void *data = (void *)(long)ctx->data;
		__u64 length = bpf_xdp_get_buff_len(ctx);

		/* Compared, not subtracted: to subtract pointers takes CAP_PERFMON, which a daemon that
		 * loads this again for an interface that came back has no more. */
		if (length > LONGEST_BUFFER || data + length > (void *)(long)ctx->data_end) {
			count(queue, MULTI_BUFFER);
			return XDP_DROP;
		}
	}

	/* The last argument is what to do when the queue has no socket. */
	action = bpf_redirect_map(&xsks, queue, XDP_DROP);
	if (action != XDP_REDIRECT)
		count(queue, NO_SOCKET);
	return action;
}

char LICENSE[] SEC("license") = "MIT";
