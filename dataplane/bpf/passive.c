/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Drops every frame that an interface receives, after packet sockets have had their copy: listeners
 * (tcpdump, Suricata) see all of it, the host's stack sees and answers nothing. TCX, or a clsact
 * filter in direct-action mode, at ingress.
 */
#include "helpers.h"

SEC("classifier")
int passive(struct __sk_buff *skb)
{
	return TC_ACT_SHOT;
}

char LICENSE[] SEC("license") = "MIT";
