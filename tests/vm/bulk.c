/*
 * Bulk traffic on FreeBSD, every byte checked: for scenarios that need a link
 * full of packets, and for figures.
 *
 *	bulk sink ADDRESS PORT			accepts, reads, checks, for ever
 *	bulk source LOCAL PORT ADDRESS PORT SECONDS|BYTESb
 *						sends; prints bytes, microseconds
 *	bulk flood LOCAL PORT ADDRESS PORT SIZE SECONDS
 *						UDP, 400 datagrams a second
 *	bulk hog SECONDS			keeps all mbufs for so long
 */
#include <sys/types.h>
#include <sys/socket.h>
#include <sys/sysctl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <err.h>
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define	PERIOD	65521	/* a prime: no segment size divides it */
#define	CHUNK	65536

static uint8_t pattern[PERIOD + CHUNK];

/* Microseconds. */
static int64_t
now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (ts.tv_sec * 1000000 + ts.tv_nsec / 1000);
}

static int
endpoint(const char *host, const char *port, int type, int passive)
{
	struct addrinfo hints = { .ai_socktype = type, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV }, *ai;
	int error = getaddrinfo(host, port, &hints, &ai), one = 1, fd;

	if (error != 0)
		errx(64, "%s %s: %s", host, port, gai_strerror(error));
	if ((fd = socket(ai->ai_family, type, 0)) < 0)
		err(1, "socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if ((passive ? bind : connect)(fd, ai->ai_addr, ai->ai_addrlen) != 0)
		err(1, "%s %s %s", passive ? "bind" : "connect", host, port);
	return (fd);
}

static int
from_to(char **a, int type)
{
	struct addrinfo hints = { .ai_socktype = type, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV }, *ai;
	int fd = endpoint(a[0], a[1], type, 1);

	if (getaddrinfo(a[2], a[3], &hints, &ai) != 0 || connect(fd, ai->ai_addr, ai->ai_addrlen) != 0)
		err(1, "connect %s %s", a[2], a[3]);
	return (fd);
}

static int
sink(char **a)
{
	static uint8_t in[CHUNK];
	int listener = endpoint(a[0], a[1], SOCK_STREAM, 1), fd;

	if (listen(listener, 16) != 0)
		err(1, "listen");
	signal(SIGCHLD, SIG_IGN);
	while ((fd = accept(listener, NULL, NULL)) >= 0 || errno == ECONNABORTED) {
		uint64_t total = 0;
		ssize_t n;

		if (fd < 0)
			continue;
		if (fork() == 0) {
			close(listener);
			for (; (n = read(fd, in, sizeof(in))) > 0; total += n)
				if (memcmp(in, pattern + total % PERIOD, n) != 0)
					errx(1, "other bytes within %ju and %zd more", (uintmax_t)total, n);
			if (n < 0)
				err(1, "read after %ju", (uintmax_t)total);
			/* The end is answered with how much came. */
			if (write(fd, &total, sizeof(total)) != sizeof(total))
				err(1, "answer");
			exit(0);
		}
		close(fd);
	}
	err(1, "accept");
}

static int
source(char **a)
{
	int fd = from_to(a, SOCK_STREAM);
	char *unit;
	uint64_t total = 0, came = 0, limit = strtoull(a[4], &unit, 10);
	int64_t begin = now();

	signal(SIGPIPE, SIG_IGN);
	while (*unit == 'b' ? total < limit : now() - begin < (int64_t)limit * 1000000) {
		size_t wanted = *unit == 'b' && limit - total < CHUNK ? limit - total : CHUNK;
		ssize_t n = write(fd, pattern + total % PERIOD, wanted);

		if (n < 0)
			err(1, "write after %ju", (uintmax_t)total);
		total += n;
	}
	shutdown(fd, SHUT_WR);
	if (recv(fd, &came, sizeof(came), MSG_WAITALL) != sizeof(came) || came != total)
		errx(1, "%ju of %ju bytes arrived", (uintmax_t)came, (uintmax_t)total);
	printf("%ju %jd\n", (uintmax_t)total, (intmax_t)(now() - begin));
	return (0);
}

static int
flood(char **a)
{
	int fd = from_to(a, SOCK_DGRAM);
	size_t size = strtoul(a[4], NULL, 10);
	int64_t end = now() + strtoll(a[5], NULL, 10) * 1000000;
	uint64_t sent = 0;

	while (now() < end) {
		for (int i = 0; i < 4; i++)
			sent += send(fd, pattern, size < CHUNK ? size : CHUNK, 0) >= 0;
		usleep(10000);
	}
	printf("%ju\n", (uintmax_t)sent);
	return (0);
}

/*
 * All mbufs there are: datagrams that nobody reads. Who sends sleeps in the
 * kernel once there is none left, for others to be given back; so two threads
 * send, with clusters and without, and the main one, which needs no mbuf to
 * read, frees them in the end.
 */
#define	PAIRS	48

struct hog {
	size_t size;
	int pair[PAIRS][2];
};
static atomic_uint hogs;
static atomic_ulong hogged;
static atomic_bool enough;

static void *
hog_thread(void *cookie)
{
	struct hog *h = cookie;

	for (int i = 0; i < PAIRS; i++)
		while (!enough && send(h->pair[i][1], pattern, h->size, MSG_DONTWAIT) > 0)
			hogged++;
	hogs--;
	return (NULL);
}

static int
hog(char **a)
{
	static struct hog all[] = { { .size = 1500 }, { .size = 100 } };
	static uint8_t trash[CHUNK];
	int room = 1 << 20, drain = 2;	/* UMA_RECLAIM_DRAIN_CPU */
	pthread_t thread;

	for (int n = 0; n < 2; n++)
		for (int i = 0; i < PAIRS; i++) {
			if (socketpair(AF_UNIX, SOCK_DGRAM, 0, all[n].pair[i]) != 0)
				err(1, "socketpair");
			for (int end = 0; end < 2; end++) {
				setsockopt(all[n].pair[i][end], SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
				setsockopt(all[n].pair[i][end], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
			}
		}
	for (int n = 0; n < 2; n++) {
		hogs++;
		if ((errno = pthread_create(&thread, NULL, hog_thread, &all[n])) != 0)
			err(1, "pthread_create");
	}
	sleep(atoi(a[0]));
	printf("%lu\n", hogged);
	fflush(stdout);
	enough = true;
	for (;;) {
		unsigned left = hogs;

		for (int n = 0; n < 2; n++)
			for (int i = 0; i < PAIRS; i++)
				while (recv(all[n].pair[i][0], trash, sizeof(trash), MSG_DONTWAIT) > 0)
					;
		if (left == 0)
			return (0);
		/* Caches may hold what a sleeper waits for. */
		if (sysctlbyname("debug.uma_reclaim", NULL, NULL, &drain, sizeof(drain)) != 0)
			err(1, "debug.uma_reclaim");
		usleep(50000);
	}
}

int
main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	uint32_t state = 1;

	for (size_t i = 0; i < PERIOD; i++)
		pattern[i] = (state = state * 1103515245 + 12345) >> 16;
	for (size_t i = 0; i < CHUNK; i++)
		pattern[PERIOD + i] = pattern[i % PERIOD];
	if (argc == 4 && strcmp(what, "sink") == 0)
		return (sink(argv + 2));
	if (argc == 7 && strcmp(what, "source") == 0)
		return (source(argv + 2));
	if (argc == 8 && strcmp(what, "flood") == 0)
		return (flood(argv + 2));
	if (argc == 3 && strcmp(what, "hog") == 0)
		return (hog(argv + 2));
	errx(64, "usage: see the source");
}
