// SPDX-License-Identifier: Apache-2.0
#ifndef SYMVIRT_ADDON_DESCRIPTOR_H
#define SYMVIRT_ADDON_DESCRIPTOR_H

#include <napi.h>
#include <uv.h>

namespace symvirt {

/// Largest datagram a rank may send (SV_WIRE_MAX_DATAGRAM).
constexpr size_t kMaxDatagram = 32768;
/// Bytes read from a port in one call.
constexpr size_t kMaxRead = 65536;

/// Builds a JS Error with `code` ("ENOENT"), `errno` (negative, as Node has it) and `syscall`.
Napi::Error SystemError(Napi::Env env, int error, const char* syscall, const std::string& what);

/// A non-blocking file descriptor with readiness by uv_poll. It owns the descriptor: close(), the
/// garbage collector and the end of the environment each close it once. Runs on the loop's thread only.
///
/// JS methods: watch(readable, writable, callback), unwatch(), close(), hungUp(), accept(), receive(),
/// send(), receiveUevent(), read(), write(). A watched object is kept alive until unwatch() or close().
class Descriptor : public Napi::ObjectWrap<Descriptor> {
 public:
  static Napi::Function Define(Napi::Env env);
  /// Takes over fd; closes it if the object cannot be made.
  static Napi::Value Wrap(Napi::Env env, int fd);

  explicit Descriptor(const Napi::CallbackInfo& info);
  ~Descriptor() override;

 private:
  struct Watch;

  Napi::Value WatchReadiness(const Napi::CallbackInfo& info);
  Napi::Value Unwatch(const Napi::CallbackInfo& info);
  Napi::Value Close(const Napi::CallbackInfo& info);
  Napi::Value HungUp(const Napi::CallbackInfo& info);
  Napi::Value Accept(const Napi::CallbackInfo& info);
  Napi::Value Receive(const Napi::CallbackInfo& info);
  Napi::Value Send(const Napi::CallbackInfo& info);
  Napi::Value ReceiveUevent(const Napi::CallbackInfo& info);
  Napi::Value Read(const Napi::CallbackInfo& info);
  Napi::Value Write(const Napi::CallbackInfo& info);

  static void OnReady(uv_poll_t* handle, int status, int events);
  static void OnEnvironmentEnd(napi_async_cleanup_hook_handle hook, void* data);
  /// Throws EBADF and returns false once closed.
  bool Open(Napi::Env env) const;
  void StopWatching();
  void CloseNow();

  int fd_ = -1;
  Watch* watch_ = nullptr;  // lives until uv_close has called back
  Napi::FunctionReference callback_;
  bool watching_ = false;
};

}  // namespace symvirt

#endif
