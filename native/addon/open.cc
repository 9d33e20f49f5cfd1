// SPDX-License-Identifier: Apache-2.0
#include "open.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <string>

#include "descriptor.h"

namespace symvirt {
namespace {

bool Address(Napi::Env env, const std::string& path, sockaddr_un* address) {
  *address = {};
  address->sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address->sun_path) || path.find('\0') != std::string::npos) {
    SystemError(env, ENAMETOOLONG, "socket path", path).ThrowAsJavaScriptException();
    return false;
  }
  path.copy(address->sun_path, path.size());
  return true;
}

Napi::Value Fail(Napi::Env env, int fd, int error, const char* syscall, const std::string& what) {
  if (fd != -1) close(fd);
  SystemError(env, error, syscall, what).ThrowAsJavaScriptException();
  return {};
}

}  // namespace

Napi::Value Listen(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  if (info.Length() != 3 || !info[0].IsString() || !info[1].IsNumber() || !info[2].IsNumber()) {
    Napi::TypeError::New(env, "listen(path: string, mode: number, backlog: number)").ThrowAsJavaScriptException();
    return {};
  }
  std::string path = info[0].As<Napi::String>().Utf8Value();
  sockaddr_un address;
  if (!Address(env, path, &address)) return {};
  int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd == -1) return Fail(env, -1, errno, "socket", path);
  if (bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0)
    return Fail(env, fd, errno, "bind", path);
  if (chmod(path.c_str(), static_cast<mode_t>(info[1].As<Napi::Number>().Uint32Value() & 0777)) != 0) {
    int error = errno;
    unlink(path.c_str());
    return Fail(env, fd, error, "chmod", path);
  }
  if (listen(fd, info[2].As<Napi::Number>().Int32Value()) != 0) {
    int error = errno;
    unlink(path.c_str());
    return Fail(env, fd, error, "listen", path);
  }
  return Descriptor::Wrap(env, fd);
}

Napi::Value Connect(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  if (info.Length() != 1 || !info[0].IsString()) {
    Napi::TypeError::New(env, "connect(path: string)").ThrowAsJavaScriptException();
    return {};
  }
  std::string path = info[0].As<Napi::String>().Utf8Value();
  sockaddr_un address;
  if (!Address(env, path, &address)) return {};
  int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd == -1) return Fail(env, -1, errno, "socket", path);
  // On a unix socket connect is done at once or refused (EAGAIN: the backlog is full).
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0)
    return Fail(env, fd, errno, "connect", path);
  return Descriptor::Wrap(env, fd);
}

Napi::Value OpenPort(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  if (info.Length() != 1 || !info[0].IsString()) {
    Napi::TypeError::New(env, "openPort(path: string)").ThrowAsJavaScriptException();
    return {};
  }
  std::string path = info[0].As<Napi::String>().Utf8Value();
  int fd = open(path.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
  if (fd == -1) return Fail(env, -1, errno, "open", path);
  struct stat st;
  if (fstat(fd, &st) != 0) return Fail(env, fd, errno, "fstat", path);
  // A regular file cannot be polled and is surely a mistake.
  if (!S_ISCHR(st.st_mode)) return Fail(env, fd, ENOTTY, "open", path);
  return Descriptor::Wrap(env, fd);
}

Napi::Value OpenUevents(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);
  if (fd == -1) return Fail(env, -1, errno, "socket", "uevents");
  sockaddr_nl address = {};
  address.nl_family = AF_NETLINK;
  address.nl_groups = 1;  // the kernel's own group; udevd re-sends in group 2
  if (bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0)
    return Fail(env, fd, errno, "bind", "uevents");
  return Descriptor::Wrap(env, fd);
}

}  // namespace symvirt
