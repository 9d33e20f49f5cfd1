{
  "targets": [
    {
      "target_name": "symvirt",
      "sources": ["native/addon/addon.cc", "native/addon/descriptor.cc", "native/addon/open.cc"],
      "include_dirs": ["node_modules/node-addon-api"],
      "defines": ["NAPI_VERSION=9", "NODE_ADDON_API_DISABLE_CPP_EXCEPTIONS", "NODE_ADDON_API_ENABLE_MAYBE"],
      "cflags!": ["-fexceptions"],
      "cflags_cc!": ["-fexceptions", "-frtti", "-std=gnu++17"],
      "cflags_cc": [
        "-std=c++17",
        "-fno-exceptions",
        "-fvisibility=hidden",
        "-Wall",
        "-Wextra",
        "-Werror"
      ],
      "ldflags": ["-Wl,-Bsymbolic", "-Wl,--exclude-libs,ALL", "-Wl,-z,relro,-z,now"]
    }
  ]
}
