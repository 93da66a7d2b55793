/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Turns BPF_PROG_TEST_RUN with live frames into a traffic source: the kernel runs this program over
 * copies of one frame, and each that is due leaves through `interface`. It is attached to nothing.
 *
 * Frames may differ in length, in the flow that they belong to, and carry the time at which they left. The
 * kernel writes the original into a page once, and pages come around again: a length is put right by it,
 * bytes are not, so every field that differs is written in every frame.
 *
 * A limited rate is kept here and not by short runs: a run costs the kernel some 20 ms to set up, so
 * that many of them are bursts with gaps. A frame that is not due yet goes back to the run's page pool
 * (XDP_DROP), which costs some 20 ns, and the next one asks again.
 */
#include "../../dataplane/bpf/helpers.h"

static __u64 (*const bpf_ktime_get_ns)(void) = (void *)5;
static long (*const bpf_redirect)(__u32 ifindex, __u64 flags) = (void *)23;
static long (*const bpf_xdp_adjust_tail)(struct xdp_md *ctx, int delta) = (void *)65;

#define MAX_SIZES 64
#define PORTS 4096 /* flows of one address */

/* Set by the loader before the program is loaded. */
const volatile __u32 interface = 0; /* index of where frames leave */
const volatile __u64 limit = 0;     /* frames to send; 0: no limit */
const volatile __u64 period = 0;    /* time from frame to frame, in 1/65536 ns; 0: at once */

/* For frames that differ: UDP over IPv4 without options. All false or 0: copies, and no byte is touched. The
 * verifier knows these for constants and leaves out what they rule out. */
const volatile __u32 lengths = 0;        /* how many of `sizes` are in use */
const volatile __u16 sizes[MAX_SIZES];   /* lengths of frames, in turn; none above `full` */
const volatile __u32 flows = 0;          /* flows, in turn */
const volatile __u32 stamped = 0;        /* put the time behind the UDP header */
const volatile __u32 full = 0;           /* length of the original frame */
const volatile __u32 header_sum = 0;     /* sum of its IPv4 header without length, checksum and source */
const volatile __u32 source = 0;         /* its source address ... */
const volatile __u32 source_port = 0;    /* ... and port, as numbers */

/* One run at a time, on one core: plain additions do. Read by the loader. */
struct progress {
	__u64 sent;  /* frames handed to the interface */
	__u64 began; /* CLOCK_MONOTONIC of the first, in ns */
	__u64 last;  /* of the last, in ns; kept with a limited rate only */
	__u32 length; /* which of `sizes` is next */
	__u32 flow;   /* which flow is next */
};

/* Ethernet, IPv4 and UDP as they lie in a frame; 2-byte alignment is all that there is. */
struct frame {
	__u8 ethernet[14];
	__u16 version;
	__u16 total_length;
	__u16 identification, fragment, ttl_protocol;
	__u16 checksum;
	__u16 source[2];
	__u16 destination[2];
	__u16 source_port;
	__u16 destination_port;
	__u16 udp_length;
	__u16 udp_checksum;
	__u16 stamp[4];
};

static __always_inline __u16 big_endian(__u32 number)
{
	return __builtin_bswap16((__u16)number);
}

/* Writes everything in which frames differ. 0, or what the kernel is to be told. */
static __always_inline int shape(struct xdp_md *ctx, struct progress *at, __u64 now)
{
	__u32 length = full;
	__u32 address = source, port = source_port;
	__u32 sum = header_sum;
	struct frame *frame;

	if (lengths) {
		__u32 turn = at->length;

		at->length = turn + 1 < lengths ? turn + 1 : 0;
		length = sizes[turn & (MAX_SIZES - 1)];
		if (length < full && bpf_xdp_adjust_tail(ctx, (int)length - (int)full))
			return XDP_ABORTED;
	}
	if (flows) {
		__u32 flow = at->flow;

		at->flow = flow + 1 < flows ? flow + 1 : 0;
		port += flow % PORTS;
		address += flow / PORTS << 8;
	}
	frame = (void *)(long)ctx->data;
	if ((void *)(frame + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;

	sum += length - 14;
	sum += address >> 16;
	sum += address & 0xffff;
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	frame->total_length = big_endian(length - 14);
	frame->checksum = big_endian(~sum);
	frame->source[0] = big_endian(address >> 16);
	frame->source[1] = big_endian(address);
	frame->source_port = big_endian(port);
	frame->udp_length = big_endian(length - 34);
	frame->udp_checksum = 0; /* none, RFC 768 */
	if (stamped) {
		frame->stamp[0] = now;
		frame->stamp[1] = now >> 16;
		frame->stamp[2] = now >> 32;
		frame->stamp[3] = now >> 48;
	}
	return 0;
}

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
	__u64 now = 0;

	if (!at)
		return XDP_ABORTED;
	if (limit && at->sent >= limit)
		return XDP_DROP;
	if (!at->began || period || stamped)
		now = bpf_ktime_get_ns();
	if (!at->began)
		at->began = now;
	if (period) {
		/* Absolute: what is late is made up for, so that the rate holds over the run. */
		if ((now - at->began) << 16 < at->sent * period)
			return XDP_DROP;
		at->last = now;
	}
	if (lengths || flows || stamped) {
		int refused = shape(ctx, at, now);

		if (refused)
			return refused;
	}
	at->sent += 1;
	return bpf_redirect(interface, 0);
}

char LICENSE[] SEC("license") = "MIT";
