/* SPDX-License-Identifier: Apache-2.0 */
/* Registrations: handles that outlive the card they were made on. */
#ifndef SV_REGISTRATION_H
#define SV_REGISTRATION_H

#include "proxy.h"

struct sv_registration {
    sv_handle_t handle; /* first: the PML holds a pointer to it */
    sv_handle_t *real;  /* openib's, NULL while there is none */
    void *base;
    size_t size;
    uint32_t flags;
    sv_endpoint_t *endpoint; /* may be MCA_BTL_ENDPOINT_ANY */
    struct sv_registration *next, *previous;
};

static inline sv_handle_t *sv_registration_real(sv_handle_t *handle)
{
    return ((struct sv_registration *)(void *)handle)->real;
}

sv_handle_t *sv_registration_make(mca_btl_base_module_t *, sv_endpoint_t *, void *, size_t, uint32_t);
int sv_registration_release(mca_btl_base_module_t *, sv_handle_t *);

/* Live ones, those of tcp included. */
uint32_t sv_registration_count(void);
/* Those of them that peers may use with atomics: one-sided windows. */
uint32_t sv_registration_windows(void);
/* Gives openib's part of every live registration back; the handles stay. */
void sv_registration_drop_all(void);
/* Registers them again with the fresh module in the current epoch. 0 or negative errno. */
int sv_registration_renew_all(void);
/* All live handles as they go to the board: writes at most `count`, returns how many there are. */
uint32_t sv_registration_list(sv_handle_t *handles, uint32_t count);

/* Takes a rank's current handles from the board. Forgets all earlier ones with _reset. */
int sv_registration_remote_reset(uint32_t expected);
int sv_registration_remote_add(const sv_handle_t *handle);
/* The real bytes of the owner's current epoch for an older handle, in `room`; NULL if it has none. */
sv_handle_t *sv_registration_translate(const sv_endpoint_t *endpoint, const sv_handle_t *handle, sv_handle_t *room);

#endif
