/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The proxy BTL: one module the PML holds for the life of the job, over an openib module that comes
 * and goes and tcp modules that carry traffic while there is none. The PML finds modules and
 * endpoints by pointer and keeps both in its requests, so these must never change.
 */
#ifndef SV_PROXY_H
#define SV_PROXY_H

#include "log.h"
#include "opal_symbols.h"
#include "ranks.h"

#include <stdatomic.h>
#include <stdint.h>

/* For what is read on the message path: without it position-independent code asks a table for the address. */
#define SV_HIDDEN __attribute__((visibility("hidden")))
#define sv_likely(x) __builtin_expect(!!(x), 1)
#define sv_unlikely(x) __builtin_expect(!!(x), 0)

#define SV_MAX_TCP 8
/* Our own active messages; the BTL range of tags is 0x20 to 0x3f, openib itself uses 0x20. */
#define SV_TAG_REMOTE 0x2e
#define SV_TAG_JOIN 0x2f
#define SV_TAG_OPENIB_CONTROL 0x20

/* Bytes of a registration handle as they travel in PML headers. Never used as they are: the
 * receiver looks the real bytes up by (owner, id, epoch). */
struct mca_btl_base_registration_handle_t {
    uint32_t owner; /* rank in MPI_COMM_WORLD */
    uint32_t id;
    uint32_t epoch; /* of the owner when it was made; 0: made without a card */
    uint32_t reserved;
    unsigned char real[16];
};
typedef struct mca_btl_base_registration_handle_t sv_handle_t;

enum { SV_VIA_OPENIB = 0, SV_VIA_TCP = 1, SV_VIAS = 2 };

/* Of all peers together. What is counted by peer stands in the endpoints instead and is added up by
 * sv_proxy_traffic; these fields then hold only what belongs to no endpoint. */
struct sv_traffic {
    uint64_t sent, received; /* fragments of the PML, both directions counted where they are sure */
    uint64_t sent_bytes, received_bytes;
    int64_t outstanding; /* given to the BTL, not yet completed */
    int64_t in_hand;     /* allocated from the BTL, not yet sent or freed */
};

/* The real BTLs have their own idea of this struct; ours wraps theirs. Never freed: the thread that
 * talks to the agent reads the counters. A peer that is gone has no proc. */
struct mca_btl_base_endpoint_t {
    mca_btl_base_module_t *module;                /* where new traffic to this peer goes now */
    struct mca_btl_base_endpoint_t *real;         /* its endpoint there */
    union {
        struct {
            uint8_t via;    /* SV_VIA_… of the two above */
            bool throttled; /* the old route is not known to be drained, see throttle.h */
        };
        uint16_t special; /* 0: openib, and nobody waits */
    };
    bool asked; /* see throttle.h */
    struct mca_btl_base_endpoint_t *openib, *tcp; /* NULL while not connected there */
    mca_btl_base_module_t *tcp_module;
    opal_proc_t *proc;
    uint32_t peer;         /* rank in MPI_COMM_WORLD, or SV_FOREIGN */
    uint32_t owner_epoch;  /* the peer's epoch: which of its handles are current */
    uint64_t sent[SV_VIAS]; /* fragments of the PML to this peer */
    uint64_t sent_bytes[SV_VIAS];
    int64_t outstanding[SV_VIAS];
    uint64_t received_before; /* over openib, in endpoints of openib's that are gone */
    uint64_t sent_at_flip; /* over the present route, when it became the present one */
    uint32_t flips;        /* changes of the route */
    bool answers;          /* has to be told when `answers_at` fragments of it have come over openib, */
    uint64_t answers_at, answers_flips; /* in answer to its question */
    bool heard; /* has called this rank after the re-init */
    enum { SV_NOT_JOINED, SV_JOINING, SV_JOINED } join; /* after a re-init, see join.h */
    bool wants_openib;     /* had (or should get) an openib endpoint: add it at the next re-init */
    struct mca_btl_base_endpoint_t *next;
};
typedef struct mca_btl_base_endpoint_t sv_endpoint_t;

/* A process of another job (MPI_Comm_spawn, MPI_Comm_connect): its vpid is no rank of ours. */
#define SV_FOREIGN UINT32_MAX

struct sv_proxy {
    mca_btl_base_module_t module;
    mca_btl_base_component_t component;
    mca_btl_base_module_t *openib; /* NULL while torn down */
    mca_btl_base_component_progress_fn_t openib_progress;
    mca_btl_base_module_t *tcp[SV_MAX_TCP];
    int tcp_count;
    int via;       /* route of peers met from now on, but for those away */
    struct sv_ranks away; /* ranks without a card, while this one keeps its own: tcp leads there */
    bool tcp_only; /* nothing but tcp was ever proxied (SYMVIRT_PROXY=tcp) */
    bool polling;  /* openib may be progressed */
    bool undecided; /* the route the job begins on is not known before the modex, see start.h */
    bool began_bare; /* over tcp, as a rank had no port: what the PML was shown then stays */
    bool rebuilding; /* connected over openib again, not yet routed there */
    bool emulate_atomics; /* some ranks are away: no card does atomics while they exist anywhere else */
    bool hold_atomics; /* between the routes: they wait, see atomics.h */
    bool finalized;
    int depth;     /* inside a BTL's progress, callback or the PML's receive callback */
    uint32_t rank, world_size, local_rank;
    opal_jobid_t jobid;
    uint32_t epoch;
    sv_endpoint_t *_Atomic endpoints;
    struct sv_traffic traffic[SV_VIAS];
    mca_btl_base_module_error_cb_fn_t error_callback;
};

extern SV_HIDDEN struct sv_proxy sv_proxy;

/* Set when there is something for the rank's main thread to do at its next safe point. */
extern SV_HIDDEN atomic_int sv_pending;

/* Fills in the module after `real`, the one the PML would have got. */
void sv_proxy_build(const mca_btl_base_module_t *real, const mca_btl_base_component_t *component);
/* Copies limits and flags the PML reads; openib sets some of them only in add_procs. */
void sv_proxy_copy_limits(void);
/* The component's progress function and the low-priority callback: safe points both. */
int sv_proxy_progress(void);
int sv_proxy_safe_point(void);
mca_btl_base_module_t *sv_proxy_real(int via);
/* All of it: by peer and not. Another thread may ask; it gets what is there at about that time. */
struct sv_traffic sv_proxy_traffic(int via);

/* endpoint.c */
int sv_endpoint_add_procs(mca_btl_base_module_t *, size_t, opal_proc_t **, sv_endpoint_t **, opal_bitmap_t *);
int sv_endpoint_del_procs(mca_btl_base_module_t *, size_t, opal_proc_t **, sv_endpoint_t **);
sv_endpoint_t *sv_endpoint_of_rank(uint32_t rank);
/* Is this rank connected to processes of another job? They take no part in a cycle of this one. */
bool sv_endpoint_foreign(void);
/* This rank's endpoint to itself: openib has a loopback, tcp has not. */
static inline bool sv_endpoint_is_self(const sv_endpoint_t *endpoint)
{
    return endpoint->proc == sv_opal.proc_local_get();
}
/* The same, and made if the PML has not met it yet. NULL: Open MPI knows no such rank. */
sv_endpoint_t *sv_endpoint_known(uint32_t rank);
/* Sets the epoch of a peer, also of one not met yet. */
void sv_endpoint_set_epoch(uint32_t rank, uint32_t epoch);
/* Builds the openib endpoints of all peers that had one. 0, or negative errno with `why`. */
int sv_endpoint_connect_openib(char *why, size_t size);
/* Deletes openib's endpoint of one peer, of all; what has come by them stays counted. */
void sv_endpoint_delete_openib(sv_endpoint_t *endpoint);
void sv_endpoint_disconnect_openib(void);
void sv_endpoint_route_all(int via);
/* Only the routes to `peers`; this rank keeps its own via for all others. */
void sv_endpoint_route(const struct sv_ranks *peers, int via);
/* Makes endpoints for those of `peers` that have called this rank over openib, but that the PML has not
 * asked for yet: openib has endpoints for them. 0, or negative errno with `why`. */
int sv_endpoint_meet(const struct sv_ranks *peers, char *why, size_t size);
/* Has this rank been called over openib by peers the PML has not asked for yet? */
bool sv_endpoint_strangers(void);
/* Fragments of that rank that have come over openib in the life of the job. */
uint64_t sv_endpoint_received(uint32_t rank);

/* tcp.c */
void sv_tcp_adopt(void);
/* For a process that is left alone after all. */
void sv_tcp_give_back(void);
int sv_tcp_connect(sv_endpoint_t *endpoint);
/* BTL/tcp says so nowhere but in the status of a completion (btl_tcp_endpoint.c): it has no
 * btl_register_error. Ends the job, as ob1 does when one of its own is lost. */
_Noreturn void sv_tcp_lost(const char *what, const sv_endpoint_t *endpoint);
void sv_tcp_disconnect_all(void);
/* tcp_sendi.c: btl_sendi, of which `unsent` is the last argument: NULL, or where to put the descriptor
 * that the PML may go on with. OPAL_SUCCESS, or OPAL_ERR_RESOURCE_BUSY; another error says that the
 * message is lost with its connection. */
int sv_tcp_sendi(sv_endpoint_t *endpoint, struct opal_convertor_t *convertor, const void *header, size_t header_size,
                 size_t payload_size, uint8_t order, uint32_t flags, mca_btl_base_tag_t tag,
                 mca_btl_base_descriptor_t **unsent);
/* Classes of the descriptors tcp hands out: how btl_free and btl_send tell whose a descriptor is. */
enum { SV_TCP_CLASSES = 8 };
extern SV_HIDDEN const opal_class_t *sv_tcp_classes[SV_TCP_CLASSES];
extern SV_HIDDEN int sv_tcp_class_count;
bool sv_tcp_made_by_any(const opal_class_t *class);
void sv_tcp_note_class(const opal_class_t *class);

static inline const opal_class_t *sv_class_of(const mca_btl_base_descriptor_t *descriptor)
{
    return ((const opal_object_t *)descriptor)->obj_class;
}

static inline bool sv_tcp_made(const mca_btl_base_descriptor_t *descriptor)
{
    if (sv_likely(0 == sv_tcp_class_count)) {
        return false;
    }
    const opal_class_t *class = sv_class_of(descriptor);
    return class == sv_tcp_classes[0] || sv_tcp_made_by_any(class);
}

static inline void sv_tcp_note(const mca_btl_base_descriptor_t *descriptor)
{
    const opal_class_t *class = sv_class_of(descriptor);
    if (sv_unlikely(class != sv_tcp_classes[0])) {
        sv_tcp_note_class(class);
    }
}

/* receive.c */
int sv_receive_register(mca_btl_base_module_t *, mca_btl_base_tag_t, mca_btl_base_module_recv_cb_fn_t, void *);
int sv_receive_register_error(mca_btl_base_module_t *, mca_btl_base_module_error_cb_fn_t);
/* Hands all registered callbacks to a fresh real module. */
void sv_receive_attach(mca_btl_base_module_t *real);
void sv_receive_install_remote(mca_btl_base_module_recv_cb_fn_t callback);

#endif
