/* SPDX-License-Identifier: Apache-2.0 */
#include "status.h"

#include "agent_link.h"
#include "arrivals.h"
#include "proxy.h"
#include "registration.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct sv_msg_state sv_status;
uint32_t sv_handled_cycle, sv_handled_step;
static char openmpi_version[32];

void sv_state_counters(struct sv_msg_state *state)
{
    struct sv_wire_traffic *to[SV_VIAS] = {&state->openib, &state->tcp};
    for (int via = 0; via < SV_VIAS; via++) {
        const struct sv_traffic from = sv_proxy_traffic(via);
        *to[via] = (struct sv_wire_traffic){from.sent, from.received, from.sent_bytes, from.received_bytes};
    }
    state->registrations = sv_registration_count();
    state->windows = sv_registration_windows();
    state->whole_only = sv_arrivals_blurred();
}

uint32_t sv_state_peers(uint32_t first, struct sv_wire_peer *room, uint32_t most, uint32_t *total)
{
    uint32_t number = 0, count = 0;
    for (const sv_endpoint_t *e = sv_proxy.endpoints; e; e = e->next) {
        if (e->peer == sv_proxy.rank || SV_FOREIGN == e->peer || number++ < first || count == most) {
            continue; /* not itself, which openib has an endpoint for as well */
        }
        room[count++] = (struct sv_wire_peer){
            .rank = e->peer,
            .route = NULL == e->module           ? SV_ROUTE_NONE
                     : SV_VIA_TCP == e->via      ? SV_ROUTE_TCP
                                                 : SV_ROUTE_OPENIB,
            .epoch = e->owner_epoch,
            .openib_fragments = e->sent[SV_VIA_OPENIB],
            .openib_bytes = e->sent_bytes[SV_VIA_OPENIB],
            .tcp_fragments = e->sent[SV_VIA_TCP],
            .tcp_bytes = e->sent_bytes[SV_VIA_TCP],
        };
    }
    *total = number;
    return count;
}

void sv_publish(enum sv_wire_rank_state what)
{
    sv_status.state = (uint32_t)what;
    sv_status.h.cycle = sv_handled_cycle;
    sv_status.h.step = sv_handled_step;
    sv_status.epoch = sv_proxy.epoch;
    sv_state_counters(&sv_status);
    sv_link_state(&sv_status);
}

void sv_publish_failure(int error)
{
    sv_status.error = error;
    sv_publish(SV_RANK_FAILED);
    sv_warn("cycle %u step %u: %s", sv_handled_cycle, sv_handled_step, sv_status.detail);
}

uint32_t sv_since(uint64_t start_us)
{
    const uint64_t passed = sv_now_us() - start_us;
    return passed > UINT32_MAX ? UINT32_MAX : (uint32_t)passed;
}

void sv_status_openmpi_version(const char *version)
{
    snprintf(openmpi_version, sizeof(openmpi_version), "%s", version);
}

static void job_name(char *job, size_t size)
{
    const char *name_space = getenv("PMIX_NAMESPACE");
    const char *token = secure_getenv("SYMVIRT_JOB");
    snprintf(job, size, "%s%s%s", name_space ? name_space : "job", token ? "." : "", token ? token : "");
    for (char *c = job; *c; c++) {
        if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-", *c)) {
            *c = '-';
        }
    }
}

void sv_fill_hello(struct sv_msg_hello *hello, uint32_t flags, const char *reason)
{
    memset(hello, 0, sizeof(*hello));
    hello->rank = sv_proxy.rank;
    hello->world_size = sv_proxy.world_size;
    hello->local_rank = sv_proxy.local_rank;
    hello->pid = (uint32_t)getpid();
    hello->flags = flags;
    hello->epoch = sv_proxy.epoch;
    job_name(hello->job, sizeof(hello->job));
    snprintf(hello->library_version, sizeof(hello->library_version), "%s", SV_VERSION);
    snprintf(hello->openmpi_version, sizeof(hello->openmpi_version), "%s", openmpi_version);
    snprintf(hello->reason, sizeof(hello->reason), "%s", reason);
}
