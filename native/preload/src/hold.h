/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cooperative convergence: while its VM is being copied, a rank that runs over tcp is held at its
 * safe point so that it writes no more memory and pre-copy can end.
 */
#ifndef SV_HOLD_H
#define SV_HOLD_H

#include "agent_link.h"

/* Obeys a HOLD want (or refuses it). Returns when the rank may go on: a newer want is there, which
 * the caller obeys unless it was RUN_TCP, or no agent came for a minute. */
void sv_hold(const struct sv_want *want);

#endif
