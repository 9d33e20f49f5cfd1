/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A rank's part of a cycle, done by its main thread at a safe point: in opal_progress, outside any
 * BTL call. Chooses what a want asks for: park (park.h), a change of route (live.h)
 * or a hold on the present one (hold.h).
 */
#ifndef SV_CYCLE_H
#define SV_CYCLE_H

#include "agent_link.h"

/* Something is pending (sv_pending) and this is a safe point. */
void sv_cycle_step(void);
/* Takes a want as the one that is being obeyed; sets of earlier steps are forgotten. */
void sv_cycle_obey(const struct sv_want *want);
/* The PML closes: says good-bye to the agent. */
void sv_cycle_finalize(void);
/* Before the first safe point: what will be told to the agent. */
void sv_cycle_prepare(const char *openmpi_version);
/* The library changes nothing in this process; tells the agent (or stderr with SYMVIRT_LOG=info) why. */
void sv_cycle_inert(const char *reason);

#endif
