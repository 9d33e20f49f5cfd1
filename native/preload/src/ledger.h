/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What openib has of the verbs library. Its own finalize gives up at the first object that cannot be destroyed
 * (btl_openib_component.c, device_destruct): one queue pair or registration that it has lost sight of, and the
 * card stays open. So every object openib makes is noted. Where one cannot be destroyed, what stands in its way is
 * destroyed first and the driver is given time; and what is left after openib's library has been unloaded, when
 * nobody can know of it any more, is destroyed in the order the kernel asks for. Objects of contexts that others
 * have opened (the application, another PML) are never touched.
 */
#ifndef SV_LEDGER_H
#define SV_LEDGER_H

#include <stdbool.h>
#include <stddef.h>

struct ibv_context;

/* Contexts opened from here on until it is ended are openib's. */
void sv_ledger_begin(void);
void sv_ledger_end(void);
/* A context has been opened. */
void sv_ledger_opened(struct ibv_context *context);

/* In the order in which the kernel lets them go. */
enum sv_verbs_kind {
    SV_VERBS_QP,
    SV_VERBS_AH,
    SV_VERBS_SRQ,
    SV_VERBS_CQ,
    SV_VERBS_MR,
    SV_VERBS_CHANNEL,
    SV_VERBS_PD,
    SV_VERBS_CONTEXT,
    SV_VERBS_KINDS
};
/* `object` (NULL: nothing) of one of openib's contexts was made. Returns it. */
void *sv_ledger_note(enum sv_verbs_kind kind, struct ibv_context *context, void *object);

/* Is this object one of openib's? */
bool sv_ledger_has(const void *object);

/* Destroys what is left and says what it was, "" for nothing. Returns how many objects there were. */
int sv_ledger_release(char *what, size_t size);

#endif
