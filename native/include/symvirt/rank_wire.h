/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Datagrams between an MPI rank (libsymvirt.so) and the guest agent, over the SOCK_SEQPACKET
 * socket /run/symvirt/ranks.sock. One struct a datagram, host byte order (both ends live on one
 * machine), never larger than SV_WIRE_MAX_DATAGRAM.
 *
 * The protocol is level-triggered. The agent says what it wants (WANT), the rank says what is so
 * (STATE). Either side repeats itself after a reconnect; a repeated datagram changes nothing.
 *
 * The agent must not trust a rank: every length, count and string is checked before use.
 */
#ifndef SYMVIRT_RANK_WIRE_H
#define SYMVIRT_RANK_WIRE_H

#include <stdint.h>

#define SV_WIRE_MAGIC 0x314d5653u /* "SVM1" */
#define SV_WIRE_VERSION 1u
#define SV_WIRE_MAX_DATAGRAM 32768u
#define SV_WIRE_MAX_POST (1u << 20) /* bytes one rank may post under one key */
#define SV_WIRE_MAX_CHUNK 24576u    /* bytes of a post carried by one datagram */
#define SV_WIRE_KEY 24u             /* bytes of a board key, NUL-terminated inside */
#define SV_WIRE_JOB 64u             /* bytes of a job id, NUL-terminated inside, [A-Za-z0-9._-]+ */
#define SV_WIRE_MAX_WORLD 4096u

enum sv_wire_type {
    /* rank to agent */
    SV_MSG_HELLO = 1, /* struct sv_msg_hello: first datagram on every connection */
    SV_MSG_STATE = 2, /* struct sv_msg_state: on every change, and in answer to QUERY */
    SV_MSG_POST = 3,  /* struct sv_msg_board + bytes: this rank's part of a board set */
    SV_MSG_BYE = 4,   /* header only: the rank has left MPI_Finalize and gives the board up */
    SV_MSG_LOG = 5,   /* struct sv_msg_log */
    SV_MSG_PEERS = 6, /* struct sv_msg_peers + entries: in answer to QUERY_PEERS, one or more datagrams */
    /* agent to rank */
    SV_MSG_WELCOME = 16, /* header only: the rank is registered */
    SV_MSG_WANT = 17,    /* struct sv_msg_want: the phase the host wants */
    SV_MSG_BOARD = 18,   /* struct sv_msg_board + bytes: one rank's part of a complete set */
    SV_MSG_QUERY = 19,   /* header only: send STATE now (fresh byte counters) */
    SV_MSG_QUERY_PEERS = 21, /* header only: send PEERS now */
    SV_MSG_REJECT = 20,  /* struct sv_msg_log: not registered, text says why; the agent closes */
};

/* Every datagram begins with this. length counts the bytes after the header. */
struct sv_msg_header {
    uint32_t magic;
    uint16_t version;
    uint16_t type;
    uint32_t cycle; /* the cycle this belongs to; 0 outside one */
    uint32_t step;  /* the host's order number inside the cycle, see WANT; 0 outside one */
    uint32_t length;
    uint32_t reserved;
};

enum sv_wire_hello_flag {
    SV_HELLO_INERT = 1u,    /* the library changed nothing; reason says why */
    SV_HELLO_TCP_ONLY = 2u, /* the proxied BTL is tcp: drain and hold, nothing to tear down */
    SV_HELLO_ROCE = 4u,     /* the RoCE adaptation is on */
    SV_HELLO_RDMA_WINDOW = 8u,
};

struct sv_msg_hello {
    struct sv_msg_header h;
    uint32_t rank;
    uint32_t world_size;
    uint32_t local_rank;
    uint32_t pid;
    uint32_t flags;
    uint32_t epoch;
    char job[SV_WIRE_JOB];
    char library_version[32];
    char openmpi_version[32];
    char reason[128];
};

/* What the rank is doing about the host's want. */
enum sv_wire_rank_state {
    SV_RANK_INIT = 0,     /* before the first route is up */
    SV_RANK_RUNNING = 1,  /* the application runs; route says over what */
    SV_RANK_DRAINING = 2, /* reached its safe point, waits until nothing is on the wire */
    SV_RANK_CLOSING = 3,  /* tears the card's BTL down */
    SV_RANK_PARKED = 4,   /* held; the card has no user in this process (proven by a scan) */
    SV_RANK_OPENING = 5,  /* builds the BTL up again on the card it found */
    SV_RANK_FAILED = 6,   /* the step failed, the rank is parked as before it; detail says why */
    SV_RANK_INERT = 7,    /* the library is inert in this process */
    SV_RANK_HELD = 8,     /* obeys HOLD: stands at its safe point over tcp, the card has no user here */
};

enum sv_wire_route { SV_ROUTE_NONE = 0, SV_ROUTE_OPENIB = 1, SV_ROUTE_TCP = 2 };

/* Indices of sv_msg_state.timing_us: how long each part of the last cycle took in this rank. */
enum sv_wire_timing {
    SV_TIMING_LATE = 0,     /* from the want's arrival to the safe point */
    SV_TIMING_DRAIN = 1,    /* from the safe point to "nothing is on the wire" */
    SV_TIMING_TEARDOWN = 2, /* closing the BTL, scan included */
    SV_TIMING_HELD = 3,     /* parked or held, waiting for the signal */
    SV_TIMING_LOAD = 4,     /* loading and initialising the BTL on the new card */
    SV_TIMING_CONNECT = 5,  /* add_procs and registrations */
    SV_TIMING_COUNT = 8
};

struct sv_wire_traffic {
    uint64_t sent_fragments, received_fragments; /* over the proxied BTL, two-sided */
    uint64_t sent_bytes, received_bytes;         /* payload, put and get included */
};

struct sv_msg_state {
    struct sv_msg_header h; /* cycle and step of the want this state is about */
    uint32_t state;         /* enum sv_wire_rank_state */
    uint32_t route;         /* enum sv_wire_route */
    uint32_t epoch;
    int32_t error; /* negative errno of a failed step, else 0 */
    uint32_t timing_us[SV_TIMING_COUNT];
    struct sv_wire_traffic openib, tcp;
    uint32_t registrations; /* live proxied registrations */
    uint32_t open_descriptors; /* /dev/infiniband descriptors and mappings found by the last scan */
    uint32_t live_cycles; /* tear-downs this process has been through */
    uint32_t windows; /* live registrations peers may use with atomics */
    uint32_t whole_only; /* not 0: cannot tell its peers' traffic apart, so changes all its routes or none */
    uint32_t reserved;
    char detail[160];
};

/* POST and BOARD. data follows; a post larger than SV_WIRE_MAX_CHUNK comes in several datagrams. */
struct sv_msg_board {
    struct sv_msg_header h;
    char key[SV_WIRE_KEY];
    uint32_t rank;   /* whose part: in a POST the sender itself */
    uint32_t offset; /* of these bytes in the whole */
    uint32_t total;  /* bytes of the whole; 0 is allowed (a barrier) */
    uint32_t reserved;
    /* h.length - (sizeof(struct sv_msg_board) - sizeof(struct sv_msg_header)) bytes follow */
};

/* What the host wants of the ranks of a job. */
enum sv_wire_phase {
    SV_PHASE_RUN_OPENIB = 1, /* run over the card: leave the hold, build the BTL up if it is down */
    SV_PHASE_RUN_TCP = 2,    /* run over tcp; the card stays unused */
    SV_PHASE_PARK = 3,       /* drain, tear down, hold */
    SV_PHASE_HOLD = 4,       /* of a rank that runs over tcp: stand still, so that pre-copy can end */
};

enum sv_wire_want_flag {
    /* The host has seen the complete "quiet" set of the cycle: a rank that has not yet, will tear
     * down before it obeys. Without it nobody has torn down in this cycle. */
    SV_WANT_QUIET_COMPLETE = 1u,
};

struct sv_msg_want {
    struct sv_msg_header h; /* (cycle, step) grows; an older pair than the last is ignored */
    uint32_t phase;
    uint32_t flags;
    /* RUN_TCP and RUN_OPENIB of a rank that runs: bit r % 8 of byte r / 8 stands for rank r of
     * MPI_COMM_WORLD. The ranks whose bit is set change the routes to all their peers, the others only
     * those to ranks whose bit is set. No bit set: all ranks change all routes. */
    unsigned char moving[SV_WIRE_MAX_WORLD / 8];
};

/* One peer of the rank, as it is now. */
struct sv_wire_peer {
    uint32_t rank;
    uint32_t route; /* enum sv_wire_route: where new traffic to it goes */
    uint32_t epoch; /* the peer's: which of its registration handles are current */
    uint32_t reserved;
    uint64_t openib_fragments, openib_bytes; /* sent to it, put and get included in the bytes */
    uint64_t tcp_fragments, tcp_bytes;
};

struct sv_msg_peers {
    struct sv_msg_header h;
    uint32_t first; /* number of the first entry here */
    uint32_t total; /* entries in all; the last datagram is the one with first + its entries == total */
    /* (h.length - 8) / sizeof(struct sv_wire_peer) entries follow */
};

struct sv_msg_log {
    struct sv_msg_header h;
    uint32_t level; /* 0 error, 1 warning, 2 info, 3 debug */
    char text[252];
};

_Static_assert(sizeof(struct sv_msg_header) == 24, "wire layout");
_Static_assert(sizeof(struct sv_msg_hello) == 24 + 24 + 64 + 32 + 32 + 128, "wire layout");
_Static_assert(sizeof(struct sv_msg_state) == 24 + 16 + 32 + 64 + 24 + 160, "wire layout");
_Static_assert(sizeof(struct sv_msg_board) == 24 + 40, "wire layout");
_Static_assert(sizeof(struct sv_msg_want) == 32 + 512, "wire layout");
_Static_assert(sizeof(struct sv_wire_peer) == 48, "wire layout");
_Static_assert(sizeof(struct sv_msg_peers) == 32, "wire layout");
_Static_assert(sizeof(struct sv_msg_log) == 24 + 256, "wire layout");

#endif
