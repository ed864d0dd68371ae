/*
 * A DHCP server with one lease for each network, for dhclient.sh:
 * dhcpd INTERFACE SERVER OFFER [INTERFACE SERVER OFFER]...
 * The server is the router too; masks are /24, leases an hour. It answers by
 * broadcast, and only what RFC 2131 needs to hand out that one address.
 */
#include <sys/types.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <net/if.h>
#include <net/if_dl.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <err.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DISCOVER = 1, OFFER = 2, REQUEST = 3, NAK = 6, ACK = 5 };

struct message {
	uint8_t		op, type, length, hops;
	uint32_t	id;
	uint16_t	seconds, flags;
	struct in_addr	client, yours, server, relay;
	uint8_t		hardware[16], name[64], file[128];
	uint32_t	cookie;
	uint8_t		options[312];
};

static const uint8_t *
option(const struct message *m, size_t length, uint8_t wanted)
{
	const uint8_t *at = m->options, *end = (const uint8_t *)m + length;

	while (at + 2 <= end && *at != 255) {
		if (*at == 0) {
			at++;
			continue;
		}
		if (at + 2 + at[1] > end)
			break;
		if (*at == wanted)
			return (at + 2);
		at += 2 + at[1];
	}
	return (NULL);
}

static uint8_t *
put(uint8_t *at, uint8_t kind, const void *value, uint8_t length)
{

	*at++ = kind;
	*at++ = length;
	memcpy(at, value, length);
	return (at + length);
}

/* The interface that a message came in by. */
static unsigned
came_by(struct msghdr *header)
{

	for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c != NULL; c = CMSG_NXTHDR(header, c))
		if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_RECVIF)
			return (((struct sockaddr_dl *)CMSG_DATA(c))->sdl_index);
	return (0);
}

static void
answer(int fd, struct message *m, size_t length, struct in_addr server, struct in_addr offer)
{
	const uint8_t *kind = option(m, length, 53), *wish = option(m, length, 50);
	const uint32_t lease = htonl(3600), mask = htonl(0xffffff00);
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_len = sizeof(to), .sin_port = htons(68) };
	uint8_t reply = 0, *at;

	if (kind == NULL)
		return;
	if (*kind == DISCOVER)
		reply = OFFER;
	else if (*kind == REQUEST)
		reply = (wish != NULL ? memcmp(wish, &offer, 4) : memcmp(&m->client, &offer, 4)) == 0 ? ACK : NAK;
	if (reply == 0)
		return;
	m->op = 2;
	m->yours = offer;
	m->server = server;
	memset(m->options, 0, sizeof(m->options));
	at = put(m->options, 53, &reply, 1);
	at = put(at, 54, &server, 4);
	at = put(at, 51, &lease, 4);
	at = put(at, 1, &mask, 4);
	at = put(at, 3, &server, 4);
	*at = 255;
	/* The network's broadcast address; IP_ONESBCAST makes it all ones. */
	to.sin_addr.s_addr = server.s_addr | ~mask;
	if (sendto(fd, m, sizeof(*m), 0, (struct sockaddr *)&to, sizeof(to)) < 0)
		warn("answer");
	printf("%s %s\n", reply == OFFER ? "offer" : reply == ACK ? "ack" : "nak", inet_ntoa(offer));
}

int
main(int argc, char **argv)
{
	struct sockaddr_in any = { .sin_family = AF_INET, .sin_len = sizeof(any), .sin_port = htons(67) };
	int one = 1, fd = socket(AF_INET, SOCK_DGRAM, 0);

	if (argc < 4 || (argc - 1) % 3 != 0)
		errx(64, "usage: dhcpd INTERFACE SERVER OFFER ...");
	if (setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &one, sizeof(one)) != 0 ||
	    setsockopt(fd, IPPROTO_IP, IP_ONESBCAST, &one, sizeof(one)) != 0 ||
	    setsockopt(fd, IPPROTO_IP, IP_RECVIF, &one, sizeof(one)) != 0 ||
	    bind(fd, (struct sockaddr *)&any, sizeof(any)) != 0)
		err(1, "socket");
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (;;) {
		struct message m = { 0 };
		union { char room[256]; struct cmsghdr aligned; } control;
		struct iovec iov = { .iov_base = &m, .iov_len = sizeof(m) };
		struct msghdr header = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
		ssize_t length = recvmsg(fd, &header, 0);
		unsigned index;

		if (length < (ssize_t)offsetof(struct message, options) || m.op != 1 || m.cookie != htonl(0x63825363))
			continue;
		index = came_by(&header);
		for (int i = 1; i < argc; i += 3)
			if (if_nametoindex(argv[i]) == index) {
				struct in_addr server, offer;

				inet_aton(argv[i + 1], &server);
				inet_aton(argv[i + 2], &offer);
				answer(fd, &m, length, server, offer);
			}
	}
}
