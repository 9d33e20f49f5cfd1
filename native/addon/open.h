// SPDX-License-Identifier: Apache-2.0
#ifndef SYMVIRT_ADDON_OPEN_H
#define SYMVIRT_ADDON_OPEN_H

#include <napi.h>

namespace symvirt {

/// listen(path, mode, backlog): a bound, listening SOCK_SEQPACKET socket. The caller unlinks a stale path.
Napi::Value Listen(const Napi::CallbackInfo& info);
/// connect(path): a connected SOCK_SEQPACKET socket.
Napi::Value Connect(const Napi::CallbackInfo& info);
/// openPort(path): a character device, O_RDWR | O_NONBLOCK.
Napi::Value OpenPort(const Napi::CallbackInfo& info);
/// openUevents(): a netlink socket in the kernel's uevent group.
Napi::Value OpenUevents(const Napi::CallbackInfo& info);

}  // namespace symvirt

#endif
