/* SPDX-License-Identifier: Apache-2.0 */
/* The real openib component: loaded fresh for every epoch, closed without a trace. */
#ifndef SV_OPENIB_H
#define SV_OPENIB_H

#include "proxy.h"

/* Remembers where the stock component lies and unloads it; `stock` is invalid afterwards. */
int sv_openib_take_over(const mca_btl_base_component_t *stock, char *why, size_t size);
/* Loads the component, initialises it on the card there is now and makes its first module
 * sv_proxy.openib. A new epoch. 0, or negative errno with `why` and nothing left open. */
int sv_openib_open(char *why, size_t size);
/* Deletes the queue pairs to those ranks and what openib knows of them; the card stays open for the
 * others. All that was sent over them has arrived. 0, or negative errno with `why`: the routes to them
 * cannot be built anew in this epoch. */
int sv_openib_drop(const struct sv_ranks *peers, char *why, size_t size);
/* What openib shows the PML before it knows a card: limits, flags and which functions there are. Known once
 * sv_openib_open has loaded it, whether it found a card or not; else NULL. */
const mca_btl_base_module_t *sv_openib_defaults(void);
/* Closes it: live registrations, endpoints, module, component, library. 0, or -EBUSY with the
 * descriptors still open in `why` (then *open_count says how many). The caller has drained. */
int sv_openib_close(char *why, size_t size, int *open_count);
/* Closes only what sv_openib_open did: component and library. */
void sv_openib_unload(void);
/* At MPI_Finalize: the module, with nothing of it left in OPAL's event base; and, after that, the component. */
void sv_openib_finalize(void);
void sv_openib_end(void);

#endif
