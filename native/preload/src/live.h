/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Strategy live: the routes of the job, or those to the ranks of one VM, change between openib and tcp
 * while it runs. Joins the state machine (handover.h) to this rank's proxy, board and card.
 */
#ifndef SV_LIVE_H
#define SV_LIVE_H

#include "agent_link.h"

#include <stdbool.h>

/* Obeys RUN_TCP or RUN_OPENIB of a rank that runs; the work is done by sv_live_step. */
void sv_live_begin(const struct sv_want *want);
/* Goes on as far as it can at this safe point. True: nothing is under way (any more). */
bool sv_live_step(void);
bool sv_live_active(void);
/* After a hold: the machine begins from the route the rank has now. */
void sv_live_settle(void);

#endif
