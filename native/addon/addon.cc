// SPDX-License-Identifier: Apache-2.0
// symvirt.node: what Node cannot do itself, and nothing more. Framing, validation, retries and
// policy are TypeScript (src/agent).
#include <napi.h>

#include "descriptor.h"
#include "open.h"

namespace {

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  auto* constructor = new Napi::FunctionReference(Napi::Persistent(symvirt::Descriptor::Define(env)));
  env.SetInstanceData(constructor);
  (void)exports.Set("listen", Napi::Function::New(env, symvirt::Listen, "listen"));
  (void)exports.Set("connect", Napi::Function::New(env, symvirt::Connect, "connect"));
  (void)exports.Set("openPort", Napi::Function::New(env, symvirt::OpenPort, "openPort"));
  (void)exports.Set("openUevents", Napi::Function::New(env, symvirt::OpenUevents, "openUevents"));
  return exports;
}

}  // namespace

NODE_API_MODULE(symvirt, Init)
