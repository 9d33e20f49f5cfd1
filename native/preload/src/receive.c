/* SPDX-License-Identifier: Apache-2.0 */
/* Receiving: a trampoline stands in the active-message table and turns the real module into the
 * proxy, for ob1 looks modules up by pointer and aborts on one it does not know
 * (pml_ob1_recvreq.c). Other BTLs pass through. */
#include "arrivals.h"
#include "proxy.h"

struct registration {
    mca_btl_base_module_recv_cb_fn_t callback;
    void *data;
};
static struct registration registered[MCA_BTL_TAG_MAX];

static inline bool is_tcp(const mca_btl_base_module_t *module)
{
    for (int i = 0; i < sv_proxy.tcp_count; i++) {
        if (sv_proxy.tcp[i] == module) {
            return true;
        }
    }
    return false;
}

/* `counted` is a constant wherever this is used. */
static inline __attribute__((always_inline)) void receive(const bool counted, mca_btl_base_module_t *module,
                                                          mca_btl_base_tag_t tag,
                                                          mca_btl_base_descriptor_t *descriptor, void *data)
{
    const struct registration *registration = data;
    const void *outer = NULL;
    if (module == sv_proxy.openib) {
        if (counted) {
            sv_arrivals_note(descriptor);
        }
        sv_proxy.traffic[SV_VIA_OPENIB].received_bytes += descriptor->des_segments[0].seg_len;
        module = &sv_proxy.module;
        outer = sv_arrivals_outer;
        sv_arrivals_outer = NULL; /* the callback may take in others */
    } else if (is_tcp(module)) {
        sv_proxy.traffic[SV_VIA_TCP].received += counted;
        sv_proxy.traffic[SV_VIA_TCP].received_bytes += descriptor->des_segments[0].seg_len;
        module = &sv_proxy.module;
    } /* else vader, self: nothing to do with a card */
    sv_proxy.depth++;
    registration->callback(module, tag, descriptor, registration->data);
    sv_proxy.depth--;
    sv_arrivals_outer = outer;
}

static __attribute__((noinline)) void receive_otherwise(mca_btl_base_module_t *module, mca_btl_base_tag_t tag,
                                                        mca_btl_base_descriptor_t *descriptor, void *data)
{
    receive(true, module, tag, descriptor, data);
}

/* A message of openib's own is handed on with nothing left to do after it: openib calls from its progress
 * alone, which is inside sv_proxy_progress and has its depth. */
static void trampoline(mca_btl_base_module_t *module, mca_btl_base_tag_t tag, mca_btl_base_descriptor_t *descriptor,
                       void *data)
{
    const struct registration *registration = data;
    if (sv_unlikely(module != sv_proxy.openib) || sv_unlikely(NULL != sv_arrivals_outer)) {
        receive_otherwise(module, tag, descriptor, data);
        return;
    }
    struct sv_arrivals *from = sv_arrivals_known(descriptor);
    if (sv_unlikely(NULL == from)) {
        receive_otherwise(module, tag, descriptor, data);
        return;
    }
    from->count++;
    sv_proxy.traffic[SV_VIA_OPENIB].received_bytes += descriptor->des_segments[0].seg_len;
    registration->callback(&sv_proxy.module, tag, descriptor, registration->data);
}

/* Our own messages: answers among them come after a drain. */
static void remote_trampoline(mca_btl_base_module_t *module, mca_btl_base_tag_t tag,
                              mca_btl_base_descriptor_t *descriptor, void *data)
{
    receive(false, module, tag, descriptor, data);
}

int sv_receive_register(mca_btl_base_module_t *module, mca_btl_base_tag_t tag,
                        mca_btl_base_module_recv_cb_fn_t callback, void *data)
{
    registered[tag].callback = callback;
    registered[tag].data = data;
    for (int via = 0; via < SV_VIAS; via++) {
        mca_btl_base_module_t *real = sv_proxy_real(via);
        if (real && real->btl_register) {
            real->btl_register(real, tag, callback, data);
        }
    }
    sv_opal.trigger[tag].cbfunc = trampoline;
    sv_opal.trigger[tag].cbdata = &registered[tag];
    return OPAL_SUCCESS;
}

void sv_receive_install_remote(mca_btl_base_module_recv_cb_fn_t callback)
{
    registered[SV_TAG_REMOTE].callback = callback;
    sv_opal.trigger[SV_TAG_REMOTE].cbfunc = remote_trampoline;
    sv_opal.trigger[SV_TAG_REMOTE].cbdata = &registered[SV_TAG_REMOTE];
}

static void real_error(mca_btl_base_module_t *module, int32_t flags, struct opal_proc_t *proc, char *text)
{
    sv_error("%s reports an error: flags 0x%x, peer %u", is_tcp(module) ? "tcp" : "openib", (unsigned)flags,
             proc ? proc->proc_name.vpid : UINT32_MAX);
    if (sv_proxy.error_callback) {
        sv_proxy.error_callback(&sv_proxy.module, flags, proc, text);
    }
}

int sv_receive_register_error(mca_btl_base_module_t *module, mca_btl_base_module_error_cb_fn_t callback)
{
    sv_proxy.error_callback = callback;
    if (sv_proxy.openib && sv_proxy.openib->btl_register_error) {
        sv_proxy.openib->btl_register_error(sv_proxy.openib, real_error);
    }
    for (int i = 0; i < sv_proxy.tcp_count; i++) {
        if (sv_proxy.tcp[i]->btl_register_error) {
            sv_proxy.tcp[i]->btl_register_error(sv_proxy.tcp[i], real_error);
        }
    }
    return OPAL_SUCCESS;
}

void sv_receive_attach(mca_btl_base_module_t *real)
{
    if (real->btl_register_error) {
        real->btl_register_error(real, real_error);
    }
    for (int tag = 0; real->btl_register && tag < MCA_BTL_TAG_MAX; tag++) {
        if (registered[tag].callback) {
            real->btl_register(real, (mca_btl_base_tag_t)tag, registered[tag].callback, registered[tag].data);
        }
    }
}
