/*
 * The interface of /dev/mobconn, see mobconn(4).
 *
 * The C rendering of the crate mobconn-abi; a test keeps the two equal.
 * Integers are in host byte order, ports included; addresses are in network
 * byte order, IPv4 in the first four bytes. Reserved fields must be zero.
 */
#ifndef _MOBCONN_H_
#define	_MOBCONN_H_

#include <sys/types.h>
#include <sys/ioccom.h>

#define	MOBCONN_ABI_VERSION	1
#define	MOBCONN_DEVICE		"mobconn"	/* below /dev */

/* mobconn_tuple.version and .protocol */
#define	MOBCONN_IPV4		4
#define	MOBCONN_IPV6		6
#define	MOBCONN_TCP		6
#define	MOBCONN_UDP		17

/* One side, stack or wire, of a flow; direction is the host's own. */
struct mobconn_tuple {
	uint8_t		local[16];
	uint8_t		remote[16];
	uint16_t	local_port;
	uint16_t	remote_port;
	uint8_t		version;
	uint8_t		protocol;
	uint8_t		reserved[2];
};

/* mobconn_move_batch.half: which half of the wire side moves */
#define	MOBCONN_LOCAL		1
#define	MOBCONN_REMOTE		2

/* mobconn_half_state.alternate: what the half's other address is for */
#define	MOBCONN_NONE		0	/* there is none */
#define	MOBCONN_PENDING		1	/* accepted on input, not used on output */
#define	MOBCONN_PENDING_HOLD	2	/* the same, and nothing is sent */
#define	MOBCONN_GRACE		3	/* the old one, accepted on input */

struct mobconn_half_state {
	uint8_t		other[16];
	uint32_t	generation;
	uint32_t	pending_generation;
	uint8_t		alternate;
	uint8_t		reserved[7];
};

/* One binding; created and used are seconds of uptime. */
struct mobconn_record {
	struct mobconn_tuple		stack;
	struct mobconn_tuple		wire;
	struct mobconn_half_state	local;
	struct mobconn_half_state	remote;
	uint64_t			id;
	uint64_t			created;
	uint64_t			used;
	uint32_t			flags;
	uint32_t			reserved;
};

/* mobconn_record.flags */
#define	MOBCONN_DISPLACED	1	/* its ports differ between the sides */
#define	MOBCONN_LOST		2	/* its wire side is another flow's now */

struct mobconn_info {
	uint32_t	version;
	uint32_t	module;		/* major << 16 | minor << 8 | patch */
	uint32_t	flows;
	uint32_t	capacity;
	uint32_t	local_generation;
	uint32_t	reserved;
	uint64_t	uptime;
};

struct mobconn_flow_add {
	struct mobconn_tuple	stack;
	struct mobconn_tuple	wire;
	uint32_t		flags;		/* 0 */
	uint32_t		reserved;
};

struct mobconn_flow_delete {
	struct mobconn_tuple	stack;
	uint32_t		flags;		/* 0 */
	uint32_t		reserved;
};

struct mobconn_flow_get {
	struct mobconn_record	record;		/* in: the side */
};

#define	MOBCONN_LIST_MAX	4096
struct mobconn_flow_list {
	uint64_t	cursor;		/* 0 begins, 0 ends */
	uint64_t	buffer;		/* of struct mobconn_record */
	uint32_t	count;
	uint32_t	record_size;
};

struct mobconn_move_entry {
	struct mobconn_tuple	stack;
	uint32_t		generation;
	uint32_t		error;		/* out: an errno */
};

#define	MOBCONN_BATCH_MAX	65536
struct mobconn_move_batch {
	uint8_t		address[16];
	uint64_t	entries;	/* of struct mobconn_move_entry */
	uint32_t	count;
	uint32_t	failed;		/* out */
	uint8_t		version;
	uint8_t		half;
	uint8_t		hold;
	uint8_t		take;
	uint8_t		reserved[4];
};

struct mobconn_expire {
	uint32_t	grace;
	uint32_t	udp_idle;
	uint32_t	ended;		/* out */
	uint32_t	removed;	/* out */
};

#define	MOBCONN_STATS_MAX	64
struct mobconn_stats {
	uint32_t	reset;
	uint32_t	count;		/* out */
	uint64_t	values[MOBCONN_STATS_MAX];
};

/* One address of this host and the network that it belongs to. */
struct mobconn_egress_rule {
	uint8_t		source[16];
	uint8_t		gateway[16];
	uint32_t	interface;	/* index */
	uint8_t		version;
	uint8_t		reserved[3];
};

struct mobconn_egress_prefix {
	uint8_t		address[16];
	uint8_t		length;
	uint8_t		version;
	uint8_t		on_link;	/* routed as ever; else of peers */
	uint8_t		reserved[5];
};

/* By which network packets leave; 0 rules: as routed. */
#define	MOBCONN_EGRESS_RULES_MAX	16
#define	MOBCONN_EGRESS_PREFIXES_MAX	64
struct mobconn_egress {
	struct mobconn_egress_rule	rules[MOBCONN_EGRESS_RULES_MAX];
	struct mobconn_egress_prefix	prefixes[MOBCONN_EGRESS_PREFIXES_MAX];
	uint32_t	rule_count;
	uint32_t	prefix_count;
	uint16_t	port;		/* the daemon's */
	uint8_t		reserved[6];
};

/*
 * What is counted, in the order of mobconn_stats.values: X(name, description).
 */
#define	MOBCONN_COUNTERS(X)						\
	X(translated_in, "Packets received and given their stack side")	\
	X(translated_out, "Packets sent and given their wire side")	\
	X(again, "Packets sent that the hook had translated before and left alone") \
	X(held, "Packets kept because their move is not committed yet")	\
	X(released, "Kept packets sent after all")			\
	X(dropped_held, "Packets dropped because their move is not committed yet and too many are kept") \
	X(dropped_pending_rst, "RST segments dropped on a wire side that is not committed yet") \
	X(dropped_stray, "Packets with a side of a bound flow that are not of it") \
	X(dropped_newcomer, "Beginnings of connections dropped because too many wait for a port, or none is free") \
	X(fragments, "Fragments given to reassembly before the firewalls") \
	X(dropped_memory, "Packets of a moved flow dropped for short memory") \
	X(dropped_contended, "Packets of a moved flow dropped because the table changed too often under them") \
	X(dropped_too_big, "Packets of a moved flow dropped because they do not fit the interface that they leave by now; TCP is told") \
	X(passed_options, "Packets of a moved flow passed untouched because of IP options") \
	X(passed_malformed, "Packets passed untouched because their headers are malformed") \
	X(flow_added, "Bindings made")					\
	X(flow_removed, "Bindings removed")				\
	X(move_prepared, "Moves prepared, counted by flow")		\
	X(move_committed, "Moves committed, counted by flow")		\
	X(move_aborted, "Moves taken back, counted by flow")		\
	X(displaced, "Connections given another port because a moved flow has their side") \
	X(resumed, "TCP connections made to send again at once after a move") \
	X(refused_full, "Bindings refused because the table is full")	\
	X(refused_conflict, "Bindings refused because their wire side is another flow's") \
	X(steered, "Packets sent by the network of their source and not by the route to their destination") \
	X(passed_ipsec, "Packets sealed by IPsec, passed untouched while bindings live")

/* mobconn_event.kind */
#define	MOBCONN_EVENT_MADE		1
#define	MOBCONN_EVENT_DISPLACED		2
#define	MOBCONN_EVENT_PREPARED		3
#define	MOBCONN_EVENT_REBOUND		4
#define	MOBCONN_EVENT_ABORTED		5
#define	MOBCONN_EVENT_GRACE_ENDED	6
#define	MOBCONN_EVENT_LOST		7
#define	MOBCONN_EVENT_GONE		8
#define	MOBCONN_EVENT_FULL		9

/* What read(2) returns: whole ones, oldest first. */
struct mobconn_event {
	uint64_t		sequence;	/* a gap is what was lost */
	uint64_t		lost;		/* right before this one */
	uint64_t		time;		/* microseconds of uptime */
	uint32_t		kind;
	uint32_t		half;		/* that moves, or 0 */
	struct mobconn_record	record;		/* after the event */
};
#define	MOBCONN_READERS_MAX	64

#define	MOBCONN_INFO		_IOR('M', 1, struct mobconn_info)
#define	MOBCONN_FLOW_ADD	_IOW('M', 2, struct mobconn_flow_add)
#define	MOBCONN_FLOW_DELETE	_IOW('M', 3, struct mobconn_flow_delete)
#define	MOBCONN_FLOW_GET	_IOWR('M', 4, struct mobconn_flow_get)
#define	MOBCONN_FLOW_LIST	_IOWR('M', 5, struct mobconn_flow_list)
#define	MOBCONN_MOVE_PREPARE	_IOWR('M', 6, struct mobconn_move_batch)
#define	MOBCONN_MOVE_COMMIT	_IOWR('M', 7, struct mobconn_move_batch)
#define	MOBCONN_MOVE_ABORT	_IOWR('M', 8, struct mobconn_move_batch)
#define	MOBCONN_EXPIRE		_IOWR('M', 9, struct mobconn_expire)
#define	MOBCONN_FLUSH		_IO('M', 10)
#define	MOBCONN_STATS		_IOWR('M', 11, struct mobconn_stats)
#define	MOBCONN_FLOW_FIND	_IOWR('M', 12, struct mobconn_flow_get)
#define	MOBCONN_EGRESS_SET	_IOW('M', 13, struct mobconn_egress)
#define	MOBCONN_EGRESS_GET	_IOR('M', 14, struct mobconn_egress)

#endif /* !_MOBCONN_H_ */
