// SPDX-License-Identifier: Apache-2.0
#include "descriptor.h"

#include <errno.h>
#include <linux/netlink.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <memory>

namespace symvirt {

Napi::Error SystemError(Napi::Env env, int error, const char* syscall, const std::string& what) {
  const char* name = uv_err_name(-error);
  std::string message = std::string(name) + ": " + strerror(error) + ", " + syscall;
  if (!what.empty()) message += " '" + what + "'";
  Napi::Error e = Napi::Error::New(env, message);
  (void)e.Set("code", Napi::String::New(env, name));
  (void)e.Set("errno", Napi::Number::New(env, -error));
  (void)e.Set("syscall", Napi::String::New(env, syscall));
  return e;
}

// The uv handle must outlive the object until its close callback; the cleanup hook makes the end of a
// worker's environment wait for that callback.
struct Descriptor::Watch {
  uv_poll_t poll;
  Descriptor* owner;
  napi_async_cleanup_hook_handle hook;
};

Napi::Function Descriptor::Define(Napi::Env env) {
  return DefineClass(env, "Descriptor",
                     {InstanceMethod("watch", &Descriptor::WatchReadiness),
                      InstanceMethod("unwatch", &Descriptor::Unwatch),
                      InstanceMethod("close", &Descriptor::Close),
                      InstanceMethod("hungUp", &Descriptor::HungUp),
                      InstanceMethod("accept", &Descriptor::Accept),
                      InstanceMethod("receive", &Descriptor::Receive),
                      InstanceMethod("send", &Descriptor::Send),
                      InstanceMethod("receiveUevent", &Descriptor::ReceiveUevent),
                      InstanceMethod("read", &Descriptor::Read),
                      InstanceMethod("write", &Descriptor::Write)});
}

Napi::Value Descriptor::Wrap(Napi::Env env, int fd) {
  auto* constructor = env.GetInstanceData<Napi::FunctionReference>();
  int handed = fd;
  auto made = constructor->New({Napi::External<int>::New(env, &handed)});
  if (handed != -1) close(handed);
  return made.IsJust() ? Napi::Value(made.Unwrap()) : Napi::Value();
}

Descriptor::Descriptor(const Napi::CallbackInfo& info) : Napi::ObjectWrap<Descriptor>(info) {
  Napi::Env env = info.Env();
  if (info.Length() != 1 || !info[0].IsExternal()) {
    Napi::TypeError::New(env, "Descriptors are made by listen, connect, openPort and openUevents")
        .ThrowAsJavaScriptException();
    return;
  }
  int* handed = info[0].As<Napi::External<int>>().Data();
  auto watch = std::make_unique<Watch>();
  watch->owner = this;
  uv_loop_t* loop = nullptr;
  if (napi_get_uv_event_loop(env, &loop) != napi_ok) {
    Napi::Error::New(env, "No event loop").ThrowAsJavaScriptException();
    return;
  }
  int rc = uv_poll_init(loop, &watch->poll, *handed);
  if (rc != 0) {
    SystemError(env, -rc, "uv_poll_init", "").ThrowAsJavaScriptException();
    return;
  }
  watch->poll.data = watch.get();
  fd_ = *handed;
  *handed = -1;
  watch_ = watch.release();
  if (napi_add_async_cleanup_hook(env, OnEnvironmentEnd, watch_, &watch_->hook) != napi_ok) watch_->hook = nullptr;
}

// The object cannot be collected while it is watched; only the end of the environment brings it here
// in that state, and then its own reference is already void.
Descriptor::~Descriptor() {
  if (watching_) uv_poll_stop(&watch_->poll);
  watching_ = false;
  CloseNow();
}

void Descriptor::OnEnvironmentEnd(napi_async_cleanup_hook_handle, void* data) {
  auto* watch = static_cast<Watch*>(data);
  if (watch->owner != nullptr) watch->owner->CloseNow();
}

void Descriptor::StopWatching() {
  if (!watching_) return;
  watching_ = false;
  uv_poll_stop(&watch_->poll);
  callback_.Reset();
  Unref();
}

void Descriptor::CloseNow() {
  if (fd_ == -1) return;
  StopWatching();
  watch_->owner = nullptr;
  uv_close(reinterpret_cast<uv_handle_t*>(&watch_->poll), [](uv_handle_t* handle) {
    auto* watch = static_cast<Watch*>(handle->data);
    if (watch->hook != nullptr) napi_remove_async_cleanup_hook(watch->hook);
    delete watch;
  });
  watch_ = nullptr;
  // uv_close has taken the descriptor out of the loop's epoll set, so it may go at once.
  close(fd_);
  fd_ = -1;
}

bool Descriptor::Open(Napi::Env env) const {
  if (fd_ != -1) return true;
  SystemError(env, EBADF, "descriptor", "").ThrowAsJavaScriptException();
  return false;
}

void Descriptor::OnReady(uv_poll_t* handle, int status, int events) {
  Descriptor* self = static_cast<Watch*>(handle->data)->owner;
  if (self == nullptr || !self->watching_) return;
  Napi::Env env = self->Env();
  Napi::HandleScope scope(env);
  // A failed poll is told as readable: the read that follows gets the error itself.
  bool readable = status < 0 || (events & (UV_READABLE | UV_DISCONNECT)) != 0;
  bool writable = (events & UV_WRITABLE) != 0;
  Napi::Function callback = self->callback_.Value();
  (void)callback.MakeCallback(self->Value(), {Napi::Boolean::New(env, readable), Napi::Boolean::New(env, writable)});
  if (env.IsExceptionPending()) {
    Napi::Error error = env.GetAndClearPendingException();
    napi_fatal_exception(env, error.Value());
  }
}

Napi::Value Descriptor::WatchReadiness(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  if (!Open(env)) return {};
  if (info.Length() != 3 || !info[0].IsBoolean() || !info[1].IsBoolean() || !info[2].IsFunction()) {
    Napi::TypeError::New(env, "watch(readable: boolean, writable: boolean, callback: function)")
        .ThrowAsJavaScriptException();
    return {};
  }
  int events = 0;
  if (info[0].As<Napi::Boolean>().Value()) events |= UV_READABLE | UV_DISCONNECT;
  if (info[1].As<Napi::Boolean>().Value()) events |= UV_WRITABLE;
  if (events == 0) {
    StopWatching();
    return {};
  }
  int rc = uv_poll_start(&watch_->poll, events, OnReady);
  if (rc != 0) {
    SystemError(env, -rc, "uv_poll_start", "").ThrowAsJavaScriptException();
    return {};
  }
  callback_.Reset(info[2].As<Napi::Function>(), 1);
  if (!watching_) Ref();
  watching_ = true;
  return {};
}

Napi::Value Descriptor::Unwatch(const Napi::CallbackInfo&) {
  StopWatching();
  return {};
}

Napi::Value Descriptor::Close(const Napi::CallbackInfo&) {
  CloseNow();
  return {};
}

Napi::Value Descriptor::HungUp(const Napi::CallbackInfo& info) {
  if (!Open(info.Env())) return {};
  // A virtio port without its host end is readable as well (a read gives end of file): only the
  // hang-up tells.
  pollfd p = {fd_, POLLIN, 0};
  int n = poll(&p, 1, 0);
  return Napi::Boolean::New(info.Env(), n == 1 && (p.revents & (POLLHUP | POLLERR | POLLNVAL)) != 0);
}

Napi::Value Descriptor::Accept(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  if (!Open(env)) return {};
  int fd;
  do {
    fd = accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  } while (fd == -1 && (errno == EINTR || errno == ECONNABORTED));
  if (fd == -1) {
    if (errno == EAGAIN) return env.Null();
    SystemError(env, errno, "accept4", "").ThrowAsJavaScriptException();
    return {};
  }
  ucred peer = {};
  socklen_t size = sizeof(peer);
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) {
    int error = errno;
    close(fd);
    SystemError(env, error, "getsockopt SO_PEERCRED", "").ThrowAsJavaScriptException();
    return {};
  }
  Napi::Value descriptor = Wrap(env, fd);
  if (descriptor.IsEmpty()) return {};
  Napi::Object result = Napi::Object::New(env);
  (void)result.Set("descriptor", descriptor);
  (void)result.Set("pid", Napi::Number::New(env, peer.pid));
  (void)result.Set("uid", Napi::Number::New(env, peer.uid));
  (void)result.Set("gid", Napi::Number::New(env, peer.gid));
  return result;
}

// null: nothing there. An empty Buffer: the peer has closed (an empty datagram is read so as well; the
// rank protocol has none).
Napi::Value Descriptor::Receive(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  if (!Open(env)) return {};
  static thread_local char data[kMaxDatagram];
  iovec part = {data, sizeof(data)};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  ssize_t n;
  do {
    n = recvmsg(fd_, &message, MSG_CMSG_CLOEXEC);
  } while (n == -1 && errno == EINTR);
  if (n == -1) {
    if (errno == EAGAIN) return env.Null();
    SystemError(env, errno, "recvmsg", "").ThrowAsJavaScriptException();
    return {};
  }
  if ((message.msg_flags & MSG_TRUNC) != 0) {
    SystemError(env, EMSGSIZE, "recvmsg", "").ThrowAsJavaScriptException();
    return {};
  }
  return Napi::Buffer<char>::Copy(env, data, static_cast<size_t>(n));
}

Napi::Value Descriptor::Send(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  if (!Open(env)) return {};
  if (info.Length() != 1 || !info[0].IsBuffer()) {
    Napi::TypeError::New(env, "send(datagram: Buffer)").ThrowAsJavaScriptException();
    return {};
  }
  auto data = info[0].As<Napi::Buffer<char>>();
  ssize_t n;
  do {
    n = send(fd_, data.Data(), data.Length(), MSG_NOSIGNAL | MSG_EOR);
  } while (n == -1 && errno == EINTR);
  if (n == -1 && (errno == EAGAIN || errno == ENOBUFS)) return Napi::Boolean::New(env, false);
  if (n == -1) {
    SystemError(env, errno, "send", "").ThrowAsJavaScriptException();
    return {};
  }
  return Napi::Boolean::New(env, true);
}

// Only the kernel may speak (nl_pid 0): any local process can send to a netlink multicast group it
// has rights for, and udevd's own copies are not wanted either. Others' messages are skipped.
Napi::Value Descriptor::ReceiveUevent(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  if (!Open(env)) return {};
  static thread_local char data[16384];
  for (;;) {
    sockaddr_nl sender = {};
    iovec part = {data, sizeof(data)};
    msghdr message = {};
    message.msg_name = &sender;
    message.msg_namelen = sizeof(sender);
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    ssize_t n = recvmsg(fd_, &message, MSG_CMSG_CLOEXEC);
    if (n == -1 && errno == EINTR) continue;
    if (n == -1 && errno == EAGAIN) return env.Null();
    if (n == -1) {
      SystemError(env, errno, "recvmsg", "").ThrowAsJavaScriptException();
      return {};
    }
    if (sender.nl_family != AF_NETLINK || sender.nl_pid != 0 || (message.msg_flags & MSG_TRUNC) != 0) continue;
    return Napi::Buffer<char>::Copy(env, data, static_cast<size_t>(n));
  }
}

// null: nothing there. An empty Buffer: end of file; on a virtio port, the host end is closed.
Napi::Value Descriptor::Read(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  if (!Open(env)) return {};
  static thread_local char data[kMaxRead];
  ssize_t n;
  do {
    n = read(fd_, data, sizeof(data));
  } while (n == -1 && errno == EINTR);
  if (n == -1) {
    if (errno == EAGAIN) return env.Null();
    SystemError(env, errno, "read", "").ThrowAsJavaScriptException();
    return {};
  }
  return Napi::Buffer<char>::Copy(env, data, static_cast<size_t>(n));
}

// Bytes taken, 0 when the port takes none now.
Napi::Value Descriptor::Write(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  if (!Open(env)) return {};
  if (info.Length() != 1 || !info[0].IsBuffer()) {
    Napi::TypeError::New(env, "write(bytes: Buffer)").ThrowAsJavaScriptException();
    return {};
  }
  auto data = info[0].As<Napi::Buffer<char>>();
  ssize_t n;
  do {
    n = write(fd_, data.Data(), data.Length());
  } while (n == -1 && errno == EINTR);
  if (n == -1 && errno == EAGAIN) n = 0;
  if (n == -1) {
    SystemError(env, errno, "write", "").ThrowAsJavaScriptException();
    return {};
  }
  return Napi::Number::New(env, static_cast<double>(n));
}

}  // namespace symvirt
