/*
 * What engine.sh needs on FreeBSD: traffic whose every byte is checked and
 * timed, moves by ioctl(2), and forged segments; and what a daemon may. Times
 * are milliseconds of CLOCK_MONOTONIC.
 */
#include <sys/types.h>
#include <sys/ioctl.h>
#include <sys/procctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "../../kmod/mobconn.h"

#define	LONGEST	16384

static int64_t
now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (ts.tv_sec * 1000 + ts.tv_nsec / 1000000);
}

static struct addrinfo *
resolve(const char *host, const char *port, int type)
{
	struct addrinfo hints = { .ai_socktype = type, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV }, *found;
	int error = getaddrinfo(host, port, &hints, &found);

	if (error != 0)
		errx(64, "%s %s: %s", host, port, gai_strerror(error));
	return (found);
}

static int
endpoint(const char *host, const char *port, int type)
{
	struct addrinfo *ai = resolve(host, port, type);
	int one = 1, fd = socket(ai->ai_family, type, 0);

	if (fd < 0)
		err(1, "socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (ai->ai_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
	if (bind(fd, ai->ai_addr, ai->ai_addrlen) != 0)
		err(1, "bind %s %s", host, port);
	return (fd);
}

/* echo: sends back what comes. push: a number each 20 ms. */
static void
serve_one(int fd, int push)
{
	char buffer[LONGEST];
	ssize_t length;

	for (int number = 0;; number++) {
		if (!push)
			break;
		/* The other end has heard enough. */
		if (recv(fd, buffer, 1, MSG_DONTWAIT) == 0)
			exit(0);
		length = snprintf(buffer, sizeof(buffer), "%d\n", number);
		if (write(fd, buffer, length) != length)
			exit(0);
		usleep(20000);
	}
	while ((length = read(fd, buffer, sizeof(buffer))) > 0)
		for (ssize_t done = 0, n; done < length; done += n)
			if ((n = write(fd, buffer + done, length - done)) <= 0)
				exit(0);
	exit(0);
}

static void
serve(const char *host, const char *port, int push)
{
	struct sockaddr_storage from;
	struct pollfd fds[2];
	char buffer[LONGEST];
	socklen_t size;
	ssize_t length;
	int fd;

	signal(SIGCHLD, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	fds[0].fd = endpoint(host, port, SOCK_STREAM);
	fds[1].fd = endpoint(host, port, SOCK_DGRAM);
	fds[0].events = fds[1].events = POLLIN;
	if (listen(fds[0].fd, 50) != 0)
		err(1, "listen");
	for (;;) {
		if (poll(fds, 2, -1) < 0)
			continue;
		if ((fds[0].revents & POLLIN) != 0 && (fd = accept(fds[0].fd, NULL, NULL)) >= 0) {
			if (fork() == 0) {
				close(fds[0].fd);
				close(fds[1].fd);
				serve_one(fd, push);
			}
			close(fd);
		}
		size = sizeof(from);
		if ((fds[1].revents & POLLIN) != 0 &&
		    (length = recvfrom(fds[1].fd, buffer, sizeof(buffer), 0, (struct sockaddr *)&from, &size)) > 0)
			(void)sendto(fds[1].fd, buffer, length, 0, (struct sockaddr *)&from, size);
	}
}

/* Message number n of a talk: all of it follows from mark, number and size. */
static void
message(char *to, const char *mark, int number, int size)
{
	int length = snprintf(to, LONGEST, "%s %d ", mark, number);

	for (int i = length; i < size - 1; i++)
		to[i] = 'a' + (i * 7 + number + mark[0]) % 26;
	to[size - 1] = '\n';
}

static int
connected(char **a, int type)
{
	struct addrinfo *remote = resolve(a[2], a[3], type);
	int fd = endpoint(a[0], a[1], type), one = 1;

	if (connect(fd, remote->ai_addr, remote->ai_addrlen) != 0)
		err(1, "connect %s %s", a[2], a[3]);
	if (type == SOCK_STREAM)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return (fd);
}

/*
 * talk LOCAL PORT REMOTE PORT COUNT INTERVAL SIZE MARK: sends COUNT messages
 * and wants them back, in order; prints the time of each. A datagram may be
 * missing, but not be another one.
 */
static int
talk(char **a, int type)
{
	int count = atoi(a[4]), interval = atoi(a[5]), size = atoi(a[6]);
	int fd = connected(a, type), sent = 0, got = 0, partial = 0, offset = 0;
	char out[LONGEST], in[LONGEST], wanted[LONGEST];
	int64_t next = now(), limit;
	struct pollfd pfd = { .fd = fd };
	ssize_t n;

	setvbuf(stdout, NULL, _IOLBF, 0);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	limit = now() + (int64_t)count * interval + (type == SOCK_STREAM ? 200000 : 1000);
	while (type == SOCK_STREAM ? got < count : now() < limit) {
		if (now() > limit)
			errx(1, "%s: only %d of %d came back", a[7], got, count);
		if (partial == 0 && sent < count && now() >= next) {
			message(out, a[7], sent, size);
			partial = size;
			offset = 0;
			next += interval;
		}
		pfd.events = POLLIN | (partial > 0 && (type == SOCK_STREAM || sent < count) ? POLLOUT : 0);
		poll(&pfd, 1, 5);
		if (partial > 0) {
			n = write(fd, out + offset, partial);
			if (n < 0 && type == SOCK_STREAM && errno != EAGAIN)
				err(1, "%s: write after %d", a[7], sent);
			/* Between two networks a datagram is lost. */
			n = type == SOCK_DGRAM ? partial : n < 0 ? 0 : n;
			offset += n;
			partial -= n;
			sent += partial == 0;
		}
		if (type == SOCK_DGRAM) {
			if ((n = read(fd, in, sizeof(in))) < 0)
				continue;
			if (sscanf(in, "%*s %d", &got) != 1 || n != size)
				errx(1, "%s: a datagram of %zd bytes", a[7], n);
			message(wanted, a[7], got, size);
			if (memcmp(in, wanted, size) != 0)
				errx(1, "%s: another datagram", a[7]);
			printf("%jd %d\n", (intmax_t)now(), got);
			continue;
		}
		message(wanted, a[7], got, size);
		static int have;
		n = read(fd, in + have, size - have);
		if (n == 0 || (n < 0 && errno != EAGAIN))
			err(1, "%s: read after %d", a[7], got);
		have += n > 0 ? n : 0;
		if (memcmp(in, wanted, have) != 0)
			errx(1, "%s: other bytes in message %d", a[7], got);
		if (have == size) {
			printf("%jd %d\n", (intmax_t)now(), got++);
			have = 0;
		}
	}
	return (0);
}

/* hear LOCAL PORT REMOTE PORT COUNT: numbers in order, with their times. */
static int
hear(char **a)
{
	int fd = connected(a, SOCK_STREAM);
	FILE *in = fdopen(fd, "r");
	char line[64];

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int number = 0; number < atoi(a[4]); number++) {
		if (fgets(line, sizeof(line), in) == NULL || atoi(line) != number)
			errx(1, "number %d is missing", number);
		printf("%jd %d\n", (intmax_t)now(), number);
	}
	shutdown(fd, SHUT_WR);
	while (fgets(line, sizeof(line), in) != NULL)
		continue;
	return (0);
}

static int
address(const char *text, uint8_t *to)
{

	if (inet_pton(AF_INET, text, to) == 1)
		return (4);
	if (inet_pton(AF_INET6, text, to) == 1)
		return (6);
	errx(64, "%s is no address", text);
}

static int move(u_long, char **);

/* prepare|commit -: a move a line, as below; goes on after a failure. */
static int
moves(u_long command)
{
	char line[512], *a[10] = { 0 };
	int failed = 0;

	while (fgets(line, sizeof(line), stdin) != NULL) {
		char *rest = line;

		for (int i = 0; i < 10; i++)
			a[i] = strsep(&rest, " \n");
		failed |= move(command, a);
	}
	return (failed);
}

/*
 * prepare|commit HALF GENERATION HOLD TAKE PROTOCOL LOCAL PORT REMOTE
 * PORT NEW: half 1 is local. Prints the ports and the time when it is done.
 */
static int
move(u_long command, char **a)
{
	struct mobconn_move_entry entry = { .generation = atoi(a[1]) };
	struct mobconn_move_batch batch = { .entries = (uintptr_t)&entry, .count = 1, .half = atoi(a[0]) };
	static int fd = -1;

	if (fd < 0)
		fd = open("/dev/mobconn", O_RDWR);
	entry.stack.version = address(a[5], entry.stack.local);
	address(a[7], entry.stack.remote);
	entry.stack.local_port = atoi(a[6]);
	entry.stack.remote_port = atoi(a[8]);
	entry.stack.protocol = atoi(a[4]);
	if (command == MOBCONN_MOVE_PREPARE) {
		batch.version = address(a[9], batch.address);
		batch.hold = atoi(a[2]);
		batch.take = atoi(a[3]);
	}
	if (ioctl(fd, command, &batch) != 0)
		err(1, "ioctl");
	if (entry.error != 0) {
		warnc(entry.error, "%s %s", a[5], a[6]);
		return (1);
	}
	printf("%s %s %jd\n", a[6], a[8], (intmax_t)now());
	return (0);
}

static uint16_t
sum(const void *data, size_t length, uint32_t start)
{
	const uint8_t *p = data;

	for (; length > 1; p += 2, length -= 2)
		start += p[0] << 8 | p[1];
	if (length > 0)
		start += p[0] << 8;
	while (start > 0xffff)
		start = (start & 0xffff) + (start >> 16);
	return (start);
}

/* forge LOCAL PORT REMOTE PORT FLAGS: a segment with some data, IPv4 or IPv6. */
static int
forge(char **a)
{
	struct addrinfo *remote = resolve(a[2], NULL, SOCK_RAW);
	struct { struct tcphdr th; char data[4]; } segment = { .data = "late" };
	uint8_t from[16], to[16];
	int v6 = address(a[0], from) == 6, fd = socket(v6 ? AF_INET6 : AF_INET, SOCK_RAW, IPPROTO_TCP);
	uint32_t pseudo;
	struct addrinfo *local = resolve(a[0], NULL, SOCK_RAW);

	address(a[2], to);
	if (fd < 0 || bind(fd, local->ai_addr, local->ai_addrlen) != 0)
		err(1, "raw socket");
	segment.th.th_sport = htons(atoi(a[1]));
	segment.th.th_dport = htons(atoi(a[3]));
	segment.th.th_seq = htonl(0x12345678);
	segment.th.th_ack = htonl(0x9abcdef0);
	segment.th.th_off = 5;
	segment.th.th_win = htons(1000);
	((uint8_t *)&segment.th)[13] = strtol(a[4], NULL, 0);
	pseudo = sum(from, v6 ? 16 : 4, 0) + sum(to, v6 ? 16 : 4, 0) + IPPROTO_TCP + sizeof(segment);
	segment.th.th_sum = htons(~sum(&segment, sizeof(segment), pseudo));
	if (sendto(fd, &segment, sizeof(segment), 0, remote->ai_addr, remote->ai_addrlen) != sizeof(segment))
		err(1, "sendto");
	return (0);
}

/* Whether nobody may trace a process, it leaves no core, and can gain no privileges. */
static int
confined(pid_t pid)
{
	int traced, privileges;

	if (procctl(P_PID, pid, PROC_TRACE_STATUS, &traced) != 0 ||
	    procctl(P_PID, pid, PROC_NO_NEW_PRIVS_STATUS, &privileges) != 0)
		err(1, "procctl");
	return (traced != -1 || privileges != PROC_NO_NEW_PRIVS_ENABLE);
}

int
main(int argc, char **argv)
{
	struct mobconn_expire expire = { 0 };
	const char *what = argc > 1 ? argv[1] : "";
	char **a = argv + 2;

	if (strcmp(what, "now") == 0)
		return (printf("%jd\n", (intmax_t)now()) < 0);
	if (strcmp(what, "expire") == 0)
		return (ioctl(open("/dev/mobconn", O_RDWR), MOBCONN_EXPIRE, &expire) != 0);
	if (argc == 4 && strcmp(what, "echo") == 0)
		serve(a[0], a[1], 0);
	if (argc == 4 && strcmp(what, "push") == 0)
		serve(a[0], a[1], 1);
	if (argc == 10 && strcmp(what, "tcp") == 0)
		return (talk(a, SOCK_STREAM));
	if (argc == 10 && strcmp(what, "udp") == 0)
		return (talk(a, SOCK_DGRAM));
	if (argc == 7 && strcmp(what, "hear") == 0)
		return (hear(a));
	if (strcmp(what, "prepare") == 0)
		return (moves(MOBCONN_MOVE_PREPARE));
	if (strcmp(what, "commit") == 0)
		return (moves(MOBCONN_MOVE_COMMIT));
	if (argc == 7 && strcmp(what, "forge") == 0)
		return (forge(a));
	if (argc == 3 && strcmp(what, "confined") == 0)
		return (confined(atoi(a[0])));
	errx(64, "usage: see the source");
}
