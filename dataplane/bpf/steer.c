/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Which queue of a TAP gets what the host sends there (TUNSETSTEERINGEBPF). Its worth is what it replaces:
 * without a program, a device of several queues hashes each frame that is *written* to it, to remember the
 * queue that its flow came by (drivers/net/tun.c, tun_flow_update). For a device that the host does not answer
 * on, nobody asks. The kernel takes the answer modulo the number of queues.
 */
#include "helpers.h"

/* Its beginning; what is not read here is passed over. */
struct __sk_buff {
	__u32 others[17];
	__u32 hash;
};

SEC("socket")
int steer(struct __sk_buff *skb)
{
	/* What the sender's socket has; 0, the first queue, for frames without. */
	return skb->hash;
}

char LICENSE[] SEC("license") = "MIT";
