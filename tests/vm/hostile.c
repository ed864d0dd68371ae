/*
 * What hostile.sh needs on FreeBSD: every ioctl(2) of /dev/mobconn with
 * arguments that no honest program would pass. Prints a line a check.
 */
#include <sys/types.h>
#include <sys/filio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "../../kmod/mobconn.h"

#define	KERNEL_ADDRESS	0xffffffff80200000UL	/* text, in every amd64 kernel */
#define	NON_CANONICAL	0x0000800000000000UL

static int fd, reader, failures;

static const struct {
	const char	*name;
	u_long		 number;
	int		 changes;
} commands[] = {
	{ "INFO", MOBCONN_INFO, 0 },
	{ "FLOW_ADD", MOBCONN_FLOW_ADD, 1 },
	{ "FLOW_DELETE", MOBCONN_FLOW_DELETE, 1 },
	{ "FLOW_GET", MOBCONN_FLOW_GET, 0 },
	{ "FLOW_LIST", MOBCONN_FLOW_LIST, 0 },
	{ "MOVE_PREPARE", MOBCONN_MOVE_PREPARE, 1 },
	{ "MOVE_COMMIT", MOBCONN_MOVE_COMMIT, 1 },
	{ "MOVE_ABORT", MOBCONN_MOVE_ABORT, 1 },
	{ "EXPIRE", MOBCONN_EXPIRE, 1 },
	{ "FLUSH", MOBCONN_FLUSH, 1 },
	{ "STATS", MOBCONN_STATS, 0 },
	{ "FLOW_FIND", MOBCONN_FLOW_FIND, 0 },
	{ "EGRESS_SET", MOBCONN_EGRESS_SET, 1 },
	{ "EGRESS_GET", MOBCONN_EGRESS_GET, 0 },
};
#define	COMMANDS	(sizeof(commands) / sizeof(commands[0]))

static void
expect(const char *what, int fd_, u_long number, void *argument, int wanted)
{
	int got = ioctl(fd_, number, argument) == 0 ? 0 : errno;

	if (got == wanted)
		printf("ok %s: %s\n", what, wanted == 0 ? "taken" : strerror(wanted));
	else {
		printf("FAILED %s: error %d, expected %d\n", what, got, wanted);
		failures++;
	}
}

/* 10.7.x.y:PORT to 10.8.0.1:80, TCP */
static struct mobconn_tuple
tuple(uint32_t number)
{
	struct mobconn_tuple t = {
		.local = { 10, 7, number >> 8 & 0xff, number & 0xff }, .remote = { 10, 8, 0, 1 },
		.local_port = 1024 + (number >> 16), .remote_port = 80, .version = MOBCONN_IPV4, .protocol = MOBCONN_TCP,
	};

	t.local[1] = 7;
	return (t);
}

static struct mobconn_flow_add
addition(uint32_t number)
{
	struct mobconn_flow_add add = { .stack = tuple(number), .wire = tuple(number) };

	add.wire.local[1] = 9;
	return (add);
}

static void
bad_tuples(void)
{
	struct mobconn_flow_add add;
	static const struct {
		const char *what;
		size_t at;
		uint8_t value;
	} spoiled[] = {
		{ "version 0", offsetof(struct mobconn_tuple, version), 0 },
		{ "version 5", offsetof(struct mobconn_tuple, version), 5 },
		{ "version 255", offsetof(struct mobconn_tuple, version), 255 },
		{ "protocol 0", offsetof(struct mobconn_tuple, protocol), 0 },
		{ "protocol ICMP", offsetof(struct mobconn_tuple, protocol), 1 },
		{ "protocol ESP", offsetof(struct mobconn_tuple, protocol), 50 },
		{ "reserved byte", offsetof(struct mobconn_tuple, reserved), 1 },
		{ "last reserved byte", offsetof(struct mobconn_tuple, reserved) + 1, 255 },
		{ "bytes behind an IPv4 address", 15, 1 },
		{ "local address 127.7.0.1", 0, 127 },
		{ "local address 224.7.0.1", 0, 224 },
		{ "local address 255.7.0.1", 0, 255 },
		{ "remote address 127.8.0.1", 16, 127 },
		{ "remote address 239.8.0.1", 16, 239 },
	};
	char what[100];

	for (size_t i = 0; i < sizeof(spoiled) / sizeof(spoiled[0]); i++) {
		add = addition(1);
		((uint8_t *)&add.stack)[spoiled[i].at] = spoiled[i].value;
		snprintf(what, sizeof(what), "FLOW_ADD, stack side with %s", spoiled[i].what);
		expect(what, fd, MOBCONN_FLOW_ADD, &add, EINVAL);
		add = addition(1);
		((uint8_t *)&add.wire)[spoiled[i].at] = spoiled[i].value;
		snprintf(what, sizeof(what), "FLOW_ADD, wire side with %s", spoiled[i].what);
		expect(what, fd, MOBCONN_FLOW_ADD, &add, EINVAL);
	}
	add = addition(1);
	add.stack.local_port = 0;
	expect("FLOW_ADD, local port 0", fd, MOBCONN_FLOW_ADD, &add, EINVAL);
	add = addition(1);
	add.wire.remote_port = 0;
	expect("FLOW_ADD, remote port 0 on the wire", fd, MOBCONN_FLOW_ADD, &add, EINVAL);
	add = addition(1);
	add.wire.protocol = MOBCONN_UDP;
	expect("FLOW_ADD, two protocols", fd, MOBCONN_FLOW_ADD, &add, EINVAL);
	add = addition(1);
	add.flags = 1;
	expect("FLOW_ADD, an unknown flag", fd, MOBCONN_FLOW_ADD, &add, EINVAL);
	add = addition(1);
	add.reserved = 1;
	expect("FLOW_ADD, a reserved field", fd, MOBCONN_FLOW_ADD, &add, EINVAL);
	memset(&add, 0, sizeof(add));
	expect("FLOW_ADD, all zero", fd, MOBCONN_FLOW_ADD, &add, EINVAL);
	memset(&add, 0xff, sizeof(add));
	expect("FLOW_ADD, all ones", fd, MOBCONN_FLOW_ADD, &add, EINVAL);
}

static void
bad_batches(void)
{
	struct mobconn_move_entry entry = { .stack = tuple(5), .generation = 1 };
	struct mobconn_move_batch good = {
		.address = { 10, 9, 0, 5 }, .entries = (uintptr_t)&entry, .count = 1, .version = MOBCONN_IPV4, .half = MOBCONN_LOCAL,
	}, batch;
	static const struct {
		const char *what;
		uint64_t pointer;
	} pointers[] = {
		{ "null", 0 }, { "one", 1 }, { "kernel text", KERNEL_ADDRESS }, { "no canonical address", NON_CANONICAL },
		{ "the last byte", UINT64_MAX }, { "wrapping", UINT64_MAX - 40 },
	};
	static const u_long moves[] = { MOBCONN_MOVE_PREPARE, MOBCONN_MOVE_COMMIT, MOBCONN_MOVE_ABORT };
	static const char *names[] = { "PREPARE", "COMMIT", "ABORT" };
	char what[100];
	uint8_t *page;

	for (int m = 0; m < 3; m++) {
#define	TRY(text, change, wanted) do {							\
			batch = good;							\
			if (m != 0) {							\
				memset(batch.address, 0, 16);				\
				batch.version = 0;					\
			}								\
			change;								\
			snprintf(what, sizeof(what), "MOVE_%s, %s", names[m], text);	\
			expect(what, fd, moves[m], &batch, wanted);			\
		} while (0)
		TRY("half 0", batch.half = 0, EINVAL);
		TRY("half 3", batch.half = 3, EINVAL);
		TRY("half 255", batch.half = 255, EINVAL);
		TRY("a reserved byte", batch.reserved[3] = 1, EINVAL);
		TRY("hold 2", batch.hold = 2, EINVAL);
		TRY("take 255", batch.take = 255, EINVAL);
		TRY("version 7", batch.version = 7, EINVAL);
		TRY("a multicast address", batch.address[0] = 224, EINVAL);
		TRY("one entry too many", batch.count = MOBCONN_BATCH_MAX + 1, E2BIG);
		TRY("four thousand million entries", batch.count = UINT32_MAX, E2BIG);
		TRY("no entry", batch.count = 0, 0);
		for (size_t i = 0; i < sizeof(pointers) / sizeof(pointers[0]); i++) {
			char text[64];

			snprintf(text, sizeof(text), "entries at %s", pointers[i].what);
			TRY(text, batch.entries = pointers[i].pointer, EFAULT);
			TRY(text, (batch.entries = pointers[i].pointer, batch.count = MOBCONN_BATCH_MAX), EFAULT);
		}
		page = mmap(NULL, 2 * 4096, PROT_READ | PROT_WRITE, MAP_ANON | MAP_PRIVATE, -1, 0);
		munmap(page + 4096, 4096);
		TRY("entries that end outside", (batch.entries = (uintptr_t)page + 4096 - 20, batch.count = 1), EFAULT);
		memcpy(page, &entry, sizeof(entry));
		mprotect(page, 4096, PROT_READ);
		TRY("entries that cannot be written", batch.entries = (uintptr_t)page, EFAULT);
		munmap(page, 4096);
	}
	/* Each entry has its own error; the command succeeds. */
	batch = good;
	entry.stack = tuple(6);
	entry.stack.protocol = 99;
	expect("MOVE_PREPARE, an entry that is none", fd, MOBCONN_MOVE_PREPARE, &batch, 0);
	if (batch.failed != 1 || entry.error != EINVAL) {
		printf("FAILED the entry's own error: %u, %u failed\n", entry.error, batch.failed);
		failures++;
	}
	expect("FLUSH", fd, MOBCONN_FLUSH, NULL, 0);
}

static void
bad_lists(void)
{
	struct mobconn_flow_add add = addition(9);
	struct mobconn_record records[2];
	struct mobconn_flow_list good = { .buffer = (uintptr_t)records, .count = 2, .record_size = sizeof(records[0]) }, list;
	struct mobconn_stats stats = { .reset = 2 };
	struct mobconn_flow_delete delete = { .stack = add.stack };
	struct mobconn_flow_get get = { .record.stack = tuple(77) };

	expect("FLOW_ADD, a good one", fd, MOBCONN_FLOW_ADD, &add, 0);
	expect("FLOW_ADD, the same again", fd, MOBCONN_FLOW_ADD, &add, EEXIST);
	add.stack = tuple(10);
	expect("FLOW_ADD, another's wire side", fd, MOBCONN_FLOW_ADD, &add, EADDRINUSE);
#define	LIST(text, change, wanted) do {				\
		list = good;					\
		change;						\
		expect("FLOW_LIST, " text, fd, MOBCONN_FLOW_LIST, &list, wanted); \
	} while (0)
	LIST("record size 0", list.record_size = 0, EINVAL);
	LIST("record size one less", list.record_size--, EINVAL);
	LIST("no room", list.count = 0, EINVAL);
	LIST("too many", list.count = MOBCONN_LIST_MAX + 1, E2BIG);
	LIST("all that there are", list.count = UINT32_MAX, E2BIG);
	LIST("into the kernel", list.buffer = KERNEL_ADDRESS, EFAULT);
	LIST("into nowhere", list.buffer = 0, EFAULT);
	LIST("into no canonical address", list.buffer = NON_CANONICAL, EFAULT);
	LIST("behind the end", list.cursor = UINT64_MAX, 0);
	LIST("a cursor that never was", list.cursor = 0x123456789abcULL, 0);
	expect("STATS, reset 2", fd, MOBCONN_STATS, &stats, EINVAL);
	stats.reset = 1;
	expect("STATS, reset over a descriptor that only reads", reader, MOBCONN_STATS, &stats, EACCES);
	delete.flags = 1;
	expect("FLOW_DELETE, an unknown flag", fd, MOBCONN_FLOW_DELETE, &delete, EINVAL);
	delete.flags = 0;
	expect("FLOW_DELETE", fd, MOBCONN_FLOW_DELETE, &delete, 0);
	expect("FLOW_DELETE, again", fd, MOBCONN_FLOW_DELETE, &delete, ENOENT);
	expect("FLOW_GET, nothing there", fd, MOBCONN_FLOW_GET, &get, ENOENT);
}

/* Numbers that are none, arguments that are nowhere, calls that are no ioctl. */
static void
no_commands(void)
{
	union { uint8_t bytes[8192]; uint64_t aligned; } room = { .bytes = { 0 } };
	char what[100];

	for (int number = 0; number < 256; number++)
		if (number < 1 || number > (int)COMMANDS) {
			u_long request = _IOC(IOC_INOUT, 'M', number, 64);

			if (ioctl(fd, request, &room) == 0 || errno != ENOTTY) {
				printf("FAILED number %d: error %d\n", number, errno);
				failures++;
			}
		}
	printf("ok %zu numbers that are none were asked for\n", 256 - COMMANDS);
	for (size_t i = 0; i < COMMANDS; i++) {
		u_long request = commands[i].number;
		u_long length = request >> 16 & IOCPARM_MASK;

		snprintf(what, sizeof(what), "%s, one byte longer", commands[i].name);
		expect(what, fd, _IOC(IOC_INOUT, 'M', request & 0xff, length + 1), &room, ENOTTY);
		snprintf(what, sizeof(what), "%s, the longest", commands[i].name);
		expect(what, fd, _IOC(IOC_INOUT, 'M', request & 0xff, IOCPARM_MASK), &room, ENOTTY);
		snprintf(what, sizeof(what), "%s, without argument", commands[i].name);
		if (length != 0)
			expect(what, fd, _IOC(IOC_VOID, 'M', request & 0xff, 0), NULL, ENOTTY);
		if (commands[i].changes) {
			memset(&room, 0, sizeof(room));
			snprintf(what, sizeof(what), "%s over a descriptor that only reads", commands[i].name);
			expect(what, reader, request, &room, EACCES);
		}
		if (length != 0) {
			snprintf(what, sizeof(what), "%s, argument nowhere", commands[i].name);
			expect(what, fd, request, NULL, EFAULT);
			snprintf(what, sizeof(what), "%s, argument in the kernel", commands[i].name);
			expect(what, fd, request, (void *)KERNEL_ADDRESS, EFAULT);
		}
	}
	if (write(fd, &room, 16) >= 0) {
		printf("FAILED the device can be written\n");
		failures++;
	}
	if (mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0) != MAP_FAILED) {
		printf("FAILED the device can be mapped\n");
		failures++;
	}
	struct pollfd pfd = { .fd = fd, .events = POLLIN | POLLOUT };
	(void)poll(&pfd, 1, 0);
	(void)lseek(fd, INT64_MAX, SEEK_SET);
	(void)fsync(fd);
	printf("ok write, mmap, poll, lseek\n");
}

/* Descriptors that read events: more than may be, into places that are none. */
static void
events(void)
{
	struct mobconn_event event;
	struct mobconn_flow_add add = addition(3);
	struct mobconn_flow_delete delete = { .stack = add.stack };
	int readers[MOBCONN_READERS_MAX + 4], refused = 0, bad = 0;

	for (int i = 0; i < MOBCONN_READERS_MAX + 4; i++) {
		struct pollfd pfd = { .events = POLLIN };

		readers[i] = pfd.fd = open("/dev/mobconn", O_RDONLY | O_NONBLOCK);
		(void)poll(&pfd, 1, 0);
		if (read(readers[i], &event, sizeof(event)) < 0 && errno == EMFILE)
			refused++;
	}
	printf("%s %d readers are too many: %d refused\n", refused > 0 ? "ok" : "FAILED", MOBCONN_READERS_MAX + 4, refused);
	failures += refused == 0;
	for (int i = 0; i < 300; i++) {
		bad |= ioctl(fd, MOBCONN_FLOW_ADD, &add) != 0;
		bad |= ioctl(fd, MOBCONN_FLOW_DELETE, &delete) != 0;
	}
	bad |= read(readers[0], &event, sizeof(event) - 1) > 0;
	bad |= read(readers[0], (void *)KERNEL_ADDRESS, sizeof(event)) >= 0;
	bad |= read(readers[0], NULL, SSIZE_MAX) >= 0;
	bad |= read(readers[1], &event, sizeof(event)) != sizeof(event) || event.record.flags > 3;
	for (int i = 0; i < MOBCONN_READERS_MAX + 4; i++)
		close(readers[i]);
	printf("%s events into nowhere, and more than are kept\n", bad ? "FAILED" : "ok");
	failures += bad;
}

/* What is given back holds nothing of the kernel's that is not the answer. */
static void
no_leak(void)
{
	struct mobconn_info info;
	struct mobconn_stats stats;
	int bad;

	memset(&info, 0xa5, sizeof(info));
	memset(&stats, 0xa5, sizeof(stats));
	stats.reset = 0;
	bad = ioctl(fd, MOBCONN_INFO, &info) != 0 || info.version != MOBCONN_ABI_VERSION || info.reserved != 0;
	bad |= ioctl(fd, MOBCONN_STATS, &stats) != 0 || stats.count > MOBCONN_STATS_MAX;
	for (uint32_t i = stats.count; i < MOBCONN_STATS_MAX; i++)
		bad |= stats.values[i] != 0;
	printf("%s answers hold nothing else\n", bad ? "FAILED" : "ok");
	failures += bad;
}

static time_t until;

static uint64_t
draw(uint64_t *state)
{

	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return (*state);
}

/* Random arguments, near what is right; the seed is the thread's. */
static void *
storm(void *seed)
{
	uint64_t state = 0x9e3779b97f4a7c15ULL * ((uintptr_t)seed + 1), count = 0;
	static uint8_t shared[1 << 18];
	union { uint8_t bytes[8192]; uint64_t aligned; } room;

	while (time(NULL) < until) {
		size_t i = draw(&state) % COMMANDS;
		u_long length = commands[i].number >> 16 & IOCPARM_MASK;

		memset(&room, 0, length);
		switch (draw(&state) % 4) {
		case 0:		/* noise */
			for (u_long n = 0; n < length; n++)
				room.bytes[n] = draw(&state);
			break;
		case 1:		/* sparse noise */
			for (int n = 0; n < 8 && length != 0; n++)
				room.bytes[draw(&state) % length] = draw(&state) % 3 == 0 ? 0xff : draw(&state) % 4;
			break;
		default:	/* right, from a small world, so that commands meet */
			if (commands[i].number == MOBCONN_FLOW_ADD) {
				struct mobconn_flow_add add = addition(draw(&state) % 64);
				add.wire.local[3] ^= draw(&state) % 2;
				memcpy(&room, &add, sizeof(add));
			} else if (commands[i].number == MOBCONN_FLOW_DELETE) {
				struct mobconn_flow_delete delete = { .stack = tuple(draw(&state) % 64) };
				memcpy(&room, &delete, sizeof(delete));
			} else if (commands[i].number == MOBCONN_FLOW_LIST) {
				struct mobconn_flow_list list = {
					.buffer = (uintptr_t)shared, .count = 1 + draw(&state) % 512,
					.record_size = sizeof(struct mobconn_record), .cursor = draw(&state) % 128,
				};
				memcpy(&room, &list, sizeof(list));
			} else if (commands[i].number == MOBCONN_EGRESS_SET) {
				struct mobconn_egress egress = { .rule_count = draw(&state) % 3, .port = 9434 };

				for (uint32_t n = 0; n < egress.rule_count; n++)
					egress.rules[n] = (struct mobconn_egress_rule){
						.source = { 10, 7, 0, n }, .gateway = { 10, 1, 0, 1 },
						.interface = draw(&state) % 8, .version = MOBCONN_IPV4,
					};
				memcpy(&room, &egress, sizeof(egress));
			} else if (commands[i].number == MOBCONN_EXPIRE) {
				struct mobconn_expire limits = { .grace = draw(&state) % 3, .udp_idle = draw(&state) % 3 };
				memcpy(&room, &limits, sizeof(limits));
			} else if (length == sizeof(struct mobconn_move_batch)) {
				struct mobconn_move_entry entries[16];
				struct mobconn_move_batch batch = { .entries = (uintptr_t)entries, .count = draw(&state) % 17, .half = 1 + draw(&state) % 2 };

				for (int n = 0; n < 16; n++)
					entries[n] = (struct mobconn_move_entry){ .stack = tuple(draw(&state) % 64), .generation = draw(&state) % 4 };
				if (commands[i].number == MOBCONN_MOVE_PREPARE) {
					batch.version = MOBCONN_IPV4;
					batch.address[0] = 10;
					batch.address[1] = draw(&state) % 4;
					batch.address[3] = 1;
					batch.hold = draw(&state) % 2;
					batch.take = draw(&state) % 2;
				}
				(void)ioctl(fd, commands[i].number, &batch);
				count++;
				continue;
			}
		}
		(void)ioctl(draw(&state) % 8 == 0 ? reader : fd, commands[i].number, &room);
		count++;
	}
	return ((void *)(uintptr_t)count);
}

static int
random_commands(int seconds, int threads)
{
	pthread_t running[16];
	uint64_t total = 0;
	void *count;
	struct mobconn_info info;

	until = time(NULL) + seconds;
	for (int i = 0; i < threads; i++)
		if (pthread_create(&running[i], NULL, storm, (void *)(uintptr_t)i) != 0)
			err(1, "pthread_create");
	for (int i = 0; i < threads; i++) {
		pthread_join(running[i], &count);
		total += (uintptr_t)count;
	}
	if (ioctl(fd, MOBCONN_FLUSH) != 0 || ioctl(fd, MOBCONN_INFO, &info) != 0 || info.flows != 0)
		errx(1, "the table is not empty after a flush");
	printf("ok %ju random commands of %d threads, then an empty table\n", (uintmax_t)total, threads);
	return (0);
}

/* denied ERRNO: what somebody without the privilege gets over a descriptor that root has opened. */
static int
denied(int wanted)
{
	union { uint8_t bytes[8192]; uint64_t aligned; } room = { .bytes = { 0 } };
	struct mobconn_info info;
	char what[100];

	for (size_t i = 0; i < COMMANDS; i++)
		if (commands[i].number != MOBCONN_INFO) {
			snprintf(what, sizeof(what), "%s without the privilege", commands[i].name);
			expect(what, fd, commands[i].number, &room, wanted);
		}
	expect("INFO without the privilege", fd, MOBCONN_INFO, &info, 0);
	return (failures != 0);
}

/* fill COUNT [FIRST]: so many bindings; prints how many were made and the error that ended it. */
static int
fill(uint32_t count, uint32_t first)
{
	uint32_t made = 0;
	int error = 0;

	for (; made < count; made++) {
		struct mobconn_flow_add add = addition(first + made);

		if (ioctl(fd, MOBCONN_FLOW_ADD, &add) != 0) {
			error = errno;
			break;
		}
	}
	printf("%u %d\n", made, error);
	return (0);
}

/* drain COUNT [FIRST]: removes what fill made. */
static int
drain(uint32_t count, uint32_t first)
{

	for (uint32_t n = 0; n < count; n++) {
		struct mobconn_flow_delete delete = { .stack = tuple(first + n) };

		if (ioctl(fd, MOBCONN_FLOW_DELETE, &delete) != 0)
			err(1, "after %u", n);
	}
	return (0);
}

int
main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc > 3 && strcmp(what, "as") == 0) {
		/* as UID COMMAND...: su(1) needs more of a root image */
		if (setgroups(0, NULL) != 0 || setgid(atoi(argv[2])) != 0 || setuid(atoi(argv[2])) != 0)
			err(1, "setuid");
		execvp(argv[3], argv + 3);
		err(1, "%s", argv[3]);
	}
	if (strcmp(what, "open") == 0) {
		/* open ERRNO: whether it can be opened at all */
		int wanted = argc > 2 ? atoi(argv[2]) : 0;

		fd = open("/dev/mobconn", O_RDWR);
		int got = fd < 0 ? errno : 0;

		printf("%s open: error %d, expected %d\n", got == wanted ? "ok" : "FAILED", got, wanted);
		return (got != wanted);
	}
	if ((fd = open("/dev/mobconn", O_RDWR)) < 0 || (reader = open("/dev/mobconn", O_RDONLY)) < 0)
		err(1, "/dev/mobconn");
	if (strcmp(what, "all") == 0) {
		no_commands();
		events();
		bad_tuples();
		bad_batches();
		bad_lists();
		no_leak();
		return (failures != 0);
	}
	if (argc == 4 && strcmp(what, "random") == 0)
		return (random_commands(atoi(argv[2]), atoi(argv[3])));
	if (argc == 3 && strcmp(what, "denied") == 0)
		return (denied(atoi(argv[2])));
	if (argc == 4 && strcmp(what, "inherited") == 0) {
		/* inherited UID ERRNO */
		if (setgid(atoi(argv[2])) != 0 || setuid(atoi(argv[2])) != 0)
			err(1, "setuid");
		return (denied(atoi(argv[3])));
	}
	if (argc >= 3 && strcmp(what, "fill") == 0)
		return (fill(strtoul(argv[2], NULL, 0), argc > 3 ? strtoul(argv[3], NULL, 0) : 0));
	if (argc >= 3 && strcmp(what, "drain") == 0)
		return (drain(strtoul(argv[2], NULL, 0), argc > 3 ? strtoul(argv[3], NULL, 0) : 0));
	if (strcmp(what, "flush") == 0)
		return (ioctl(fd, MOBCONN_FLUSH) != 0);
	errx(64, "usage: see the source");
}
